//! [`Topics`]: who needs which subscription.

use hashbrown::HashMap;

use super::outbox::ClientOutbox;

/// Subscriptions with a count of their users: libzmq counts, too, but a topic
/// that the broker is to see anew must really go in between.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    users: HashMap<Vec<u8>, u32>,
}

impl Topics {
    pub(crate) fn add(&mut self, topic: &[u8], out: &mut impl ClientOutbox) {
        let users = self.users.entry_ref(topic).or_default();
        *users += 1;
        if *users == 1 {
            out.subscribe(topic);
        }
    }

    pub(crate) fn remove(&mut self, topic: &[u8], out: &mut impl ClientOutbox) {
        let Some(users) = self.users.get_mut(topic) else { return };
        *users -= 1;
        if *users == 0 {
            self.users.remove(topic);
            out.unsubscribe(topic);
        }
    }

    /// Forgets a user of a topic whose subscription is gone anyway.
    pub(crate) fn forget(&mut self, topic: &[u8]) {
        let Some(users) = self.users.get_mut(topic) else { return };
        *users -= 1;
        if *users == 0 {
            self.users.remove(topic);
        }
    }

    /// Subscribes to all on a new socket.
    pub(crate) fn renew_all(&mut self, out: &mut impl ClientOutbox) {
        let mut topics: Vec<&[u8]> = self.users.keys().map(Vec::as_slice).collect();
        // Keys that begin with `/`, as custom is, before the heartbeats that prove them.
        topics.sort_unstable();
        topics.into_iter().for_each(|topic| out.subscribe(topic));
    }

    /// Whether somebody else needs the topic, too.
    pub(crate) fn is_shared(&self, topic: &[u8]) -> bool {
        self.users.get(topic).is_some_and(|&users| users > 1)
    }

    /// Subscribes anew, so that the broker answers with the heartbeat.
    pub(crate) fn renew(&mut self, topic: &[u8], out: &mut impl ClientOutbox) {
        if self.users.contains_key(topic) {
            out.unsubscribe(topic);
            out.subscribe(topic);
        }
    }
}
