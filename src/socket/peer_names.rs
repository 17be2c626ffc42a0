//! [`PeerNames`]: which routing ids may still be given to peers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use super::options::{self, Value};

/// The routing ids given to peers by `connect_as`.
///
/// libzmq asserts, and so ends the process, when a routing id is given that some
/// peer already has (router.cpp, `identify_peer`). It does not tell which are in
/// use, and peers that connect by themselves bring theirs along; hence no names
/// once such a peer may be there. A name stays used after a disconnect, because
/// libzmq forgets it only later.
#[derive(Debug, Default)]
pub(super) struct PeerNames {
    given: RefCell<BTreeSet<Vec<u8>>>,
    unnamed: Cell<bool>,
    /// libzmq was told a name and then no endpoint; it would give the name to the
    /// next peer that is connected to.
    left_over: Cell<bool>,
}

impl PeerNames {
    /// From now on peers may bring any name along.
    pub(super) fn let_in_unnamed(&self) {
        self.unnamed.set(true);
    }

    /// Whether the name of a `connect_as` that failed is still to be had.
    pub(super) fn left_over(&self) -> bool {
        self.left_over.get()
    }

    pub(super) fn set_left_over(&self, left_over: bool) {
        self.left_over.set(left_over);
    }

    /// Takes the name `id`, if that is safe.
    pub(super) fn name(&self, id: &[u8]) -> Value {
        if self.unnamed.get() {
            return Err("expected to come before every bind and plain connect".into());
        }
        let value = options::routing_id(id)?;
        if !self.given.borrow_mut().insert(id.into()) {
            return Err("expected a name that no peer of this socket was given".into());
        }
        Ok(value)
    }
}
