//! Which types of sockets go together in a proxy, and which way messages flow.

use std::fmt::Write;

use super::{ProxyError, Side};
use crate::socket::SocketType::{self, *};

/// What flows between two sockets of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flows {
    /// From the first to the second.
    Forth,
    Both,
}

/// The pairs that go together, whichever of the two is the frontend.
///
/// Left out is what would pile up unread or go nowhere: XPUB with anything but XSUB
/// would collect subscriptions for ever (PUB does not tell of them), XSUB with anything
/// but XPUB would never subscribe (SUB can be told to), DEALER and ROUTER would get
/// replies that PULL, PUSH, PUB or SUB cannot pass on, and REQ and REP take and add
/// envelopes that the others need.
const PAIRS: &[(SocketType, SocketType, Flows)] = &[
    (Router, Dealer, Flows::Both),
    (Router, Pair, Flows::Both),
    (Dealer, Dealer, Flows::Both),
    (Dealer, Pair, Flows::Both),
    (Pair, Pair, Flows::Both),
    (Rep, Req, Flows::Both),
    (XSub, XPub, Flows::Both),
    (Sub, Pub, Flows::Forth),
    (Sub, Push, Flows::Forth),
    (Pull, Push, Flows::Forth),
    (Pull, Pub, Flows::Forth),
    (Stream, Dealer, Flows::Both),
    (Stream, Pair, Flows::Both),
];

/// The pairs in which the first frame that one adds is not the one that the other
/// needs, so that a hook must put the right one there.
const WITH_A_HOOK: &[(SocketType, SocketType, Flows)] =
    &[(Router, Router, Flows::Both), (Stream, Router, Flows::Both), (Stream, Stream, Flows::Both)];

/// From which sides messages flow.
///
/// # Errors
/// [`ProxyError::Pair`] if the two do not go together.
pub(super) fn sources(
    frontend: SocketType,
    backend: SocketType,
    hook: bool,
) -> Result<&'static [Side], ProxyError> {
    let further = if hook { WITH_A_HOOK } else { &[] };
    for &(first, second, flows) in PAIRS.iter().chain(further) {
        if (first, second) == (frontend, backend) || (second, first) == (frontend, backend) {
            return Ok(match flows {
                Flows::Both => &[Side::Frontend, Side::Backend],
                Flows::Forth if first == frontend => &[Side::Frontend],
                Flows::Forth => &[Side::Backend],
            });
        }
    }
    Err(ProxyError::Pair { frontend, backend })
}

/// What goes with a type of socket, for an error's text: `DEALER or PAIR`.
pub(super) fn partners(of: SocketType) -> String {
    let partners_in = |pairs: &[(SocketType, SocketType, Flows)]| -> Vec<&str> {
        let other = |&(first, second, _): &(SocketType, SocketType, Flows)| {
            if first == of { Some(second.name()) } else { (second == of).then(|| first.name()) }
        };
        pairs.iter().filter_map(other).collect()
    };
    let mut text = partners_in(PAIRS).join(" or ");
    let further = partners_in(WITH_A_HOOK);
    if !further.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(text, ", and with a hook {}", further.join(" or "));
    }
    text
}

/// Types for the copies: those that need nobody to answer.
pub(super) const CAPTURE: &[SocketType] = &[Pub, Push, Dealer, Pair];

/// Types for commands: those that receive whole messages without an envelope.
pub(super) const CONTROL: &[SocketType] = &[Rep, Pair, Pull, Sub];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_do_not_depend_on_which_is_the_frontend() {
        assert_eq!(sources(Pull, Push, false), Ok(&[Side::Frontend][..]));
        assert_eq!(sources(Push, Pull, false), Ok(&[Side::Backend][..]));
        for (frontend, backend) in [(XSub, XPub), (XPub, XSub), (Dealer, Router)] {
            let both = &[Side::Frontend, Side::Backend][..];
            assert_eq!(sources(frontend, backend, false), Ok(both));
        }
    }

    #[test]
    fn what_flows_can_be_received_and_sent() {
        for &(first, second, flows) in PAIRS.iter().chain(WITH_A_HOOK) {
            let receives = |socket_type| !matches!(socket_type, Pub | Push);
            let sends = |socket_type| !matches!(socket_type, Sub | Pull);
            assert!(receives(first) && sends(second), "{first}, {second}");
            let back = receives(second) && sends(first);
            assert_eq!(flows == Flows::Both, back, "{first}, {second}");
            assert!(back || !receives(second), "{second} would pile up what nobody reads");
        }
    }

    #[test]
    fn a_pair_that_does_not_go_together_says_what_does() {
        let error = sources(Router, Push, false).unwrap_err().to_string();
        assert_eq!(
            error,
            "proxy ROUTER to PUSH: these do not go together; ROUTER goes with DEALER or PAIR, \
             and with a hook ROUTER or STREAM; PUSH goes with SUB or PULL"
        );
        assert!(sources(Router, Router, false).is_err());
        assert!(sources(Router, Router, true).is_ok());
        let error = sources(XPub, Sub, false).unwrap_err().to_string();
        assert!(error.contains("XPUB goes with XSUB; SUB goes with PUB or PUSH"), "{error}");
    }
}
