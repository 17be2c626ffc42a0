//! [`EchoKeys`]: keys outside the subtrees, watched for the answer to changes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use slab::Slab;

use super::outbox::ClientOutbox;
use super::pending::ListId;
use super::topics::Topics;
use crate::clone::kvmsg::HUGZ;
use crate::time::Time;

/// A key no longer needed stays subscribed for this long: who writes it again
/// and again need not wait for the subscription each time.
const LINGER: Duration = Duration::from_secs(2);
/// A heartbeat has its subtree in the key frame, behind `HUGZ`, and that takes
/// 255 bytes; some transports lose subscriptions a few bytes earlier. Any part
/// of a directory covers its keys, too.
const LONGEST_DIRECTORY: usize = 240;

/// The part of a key up to its last slash.
fn directory(key: &[u8]) -> &[u8] {
    let end = key.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    &key[..end.min(LONGEST_DIRECTORY)]
}

/// A watched key, or directory of keys.
#[derive(Debug)]
struct EchoKey {
    key: Arc<[u8]>,
    directory: u32,
    /// Changes under way.
    users: u32,
    is_live: bool,
    /// The answer to this asking of its directory, or to a later one, proves it.
    proof: u32,
    since: Time,
    /// Changes that wait for it to be live.
    held: ListId,
}

/// The part of a key up to its last slash: its heartbeat serves all its keys.
#[derive(Debug)]
struct Directory {
    topic: Box<[u8]>,
    keys: u32,
    /// How often its heartbeat was asked for.
    asked: u32,
    /// The asking that was answered last; `<= asked`.
    answered: u32,
}

/// Keys outside the subtrees that we write to. Each is subscribed to, then the
/// heartbeat of its directory, which proves that subscription and carries the
/// confirmation of a change that was sent twice.
#[derive(Debug)]
pub(crate) struct EchoKeys {
    keys: Slab<EchoKey>,
    by_key: HashMap<Arc<[u8]>, u32>,
    directories: Slab<Directory>,
    by_topic: HashMap<Box<[u8]>, u32>,
    /// Keys without users and since when, in order of time. One that was used
    /// again meanwhile has another time in `keys` and is skipped.
    idle: VecDeque<(Time, u32)>,
    max: usize,
    /// Directories are watched in place of their keys.
    by_directory: bool,
}

impl EchoKeys {
    pub(crate) fn new(max: usize, by_directory: bool) -> EchoKeys {
        EchoKeys {
            keys: Slab::new(),
            by_key: HashMap::new(),
            directories: Slab::new(),
            by_topic: HashMap::new(),
            idle: VecDeque::new(),
            max,
            by_directory,
        }
    }

    /// What is subscribed to for the sake of a key.
    fn name<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        match directory(key) {
            directory if self.by_directory && !directory.is_empty() => directory,
            _ => key,
        }
    }

    /// Whether the key's echo cannot be missed any more.
    pub(crate) fn is_live(&self, id: u32) -> bool {
        self.keys[id as usize].is_live
    }

    /// The list of changes that wait until it is live.
    pub(crate) fn held(&self, id: u32) -> ListId {
        self.keys[id as usize].held
    }

    /// Adds a user to a key that is watched.
    pub(crate) fn reuse(&mut self, now: Time, key: &[u8]) -> Option<u32> {
        let id = *self.by_key.get(self.name(key))?;
        let key = &mut self.keys[id as usize];
        key.users += 1;
        if key.users == 1 {
            key.since = now;
        }
        Some(id)
    }

    /// Takes a user from a key. Its subscription stays for a while.
    pub(crate) fn release(&mut self, now: Time, id: u32) {
        let key = &mut self.keys[id as usize];
        key.users -= 1;
        if key.users == 0 {
            key.since = now;
            self.idle.push_back((now, id));
        }
    }

    /// Whether there is room to watch one more key.
    pub(crate) fn has_room(&self) -> bool {
        self.keys.len() < self.max
    }

    /// Watches a key for its first user.
    pub(crate) fn watch(
        &mut self,
        now: Time,
        key: &Arc<[u8]>,
        held: ListId,
        topics: &mut Topics,
        out: &mut impl ClientOutbox,
    ) -> u32 {
        let name = self.name(key);
        let name = if name.len() == key.len() { Arc::clone(key) } else { Arc::from(name) };
        topics.add(&name, out);
        let directory = self.directory(key, topics, out);
        let key = EchoKey {
            key: Arc::clone(&name),
            directory,
            users: 1,
            is_live: false,
            proof: self.ask(directory, topics, out),
            since: now,
            held,
        };
        let id = self.keys.insert(key) as u32;
        self.by_key.insert(name, id);
        id
    }

    fn directory(&mut self, key: &[u8], topics: &mut Topics, out: &mut impl ClientOutbox) -> u32 {
        let topic = [HUGZ, directory(key)].concat();
        if let Some(&id) = self.by_topic.get(&topic[..]) {
            self.directories[id as usize].keys += 1;
            return id;
        }
        topics.add(&topic, out);
        let topic: Box<[u8]> = topic.into();
        let name = topic.clone();
        let id = self.directories.insert(Directory { topic, keys: 1, asked: 0, answered: 0 });
        self.by_topic.insert(name, id as u32);
        id as u32
    }

    /// Asks for a directory's heartbeat, unless an answer is awaited: that may
    /// have been sent before a key was subscribed that is new now, so such a key
    /// counts for the next asking. Gives the number of the asking that proves.
    fn ask(&mut self, id: u32, topics: &mut Topics, out: &mut impl ClientOutbox) -> u32 {
        let directory = &mut self.directories[id as usize];
        if directory.asked > directory.answered {
            return directory.asked + 1;
        }
        directory.asked += 1;
        if directory.asked > 1 || topics.is_shared(&directory.topic) {
            topics.renew(&directory.topic, out);
        }
        directory.asked
    }

    /// A directory's heartbeat came; `live` is given the held lists of the keys
    /// that it proves.
    pub(crate) fn heartbeat(
        &mut self,
        topic: &[u8],
        topics: &mut Topics,
        out: &mut impl ClientOutbox,
        mut live: impl FnMut(ListId),
    ) {
        let Some(&id) = self.by_topic.get(topic) else { return };
        let directory = &mut self.directories[id as usize];
        directory.answered = directory.asked;
        let answered = directory.answered;
        let mut is_unproven = false;
        for (_, key) in self.keys.iter_mut().filter(|(_, key)| key.directory == id) {
            if key.is_live {
                continue;
            }
            match key.proof <= answered {
                true => {
                    key.is_live = true;
                    live(key.held);
                }
                false => is_unproven = true,
            }
        }
        if is_unproven {
            self.ask(id, topics, out);
        }
    }

    /// Takes keys for live that were subscribed so long ago, though no heartbeat
    /// proves it. Should the echo be missed all the same, the change is sent
    /// again and its confirmation comes with a heartbeat.
    pub(crate) fn presume(&mut self, now: Time, after: Duration, mut live: impl FnMut(ListId)) {
        for (_, key) in &mut self.keys {
            if !key.is_live && key.users > 0 && key.since + after <= now {
                key.is_live = true;
                live(key.held);
            }
        }
    }

    /// The connection was lost: nothing is proven any more.
    pub(crate) fn lost(&mut self, now: Time) {
        for (_, key) in &mut self.keys {
            key.is_live = false;
            key.proof = 0;
            if key.users > 0 {
                key.since = now;
            }
        }
        for (_, directory) in &mut self.directories {
            directory.answered = directory.asked;
        }
    }

    /// Forgets up to `count` keys that have been without users for a while, or
    /// at all if `at_once`; gives the list that each leaves to `close`.
    pub(crate) fn drop_idle(
        &mut self,
        now: Time,
        at_once: bool,
        topics: &mut Topics,
        out: &mut impl ClientOutbox,
        mut close: impl FnMut(ListId),
    ) {
        while let Some(&(since, id)) = self.idle.front() {
            let key = self.keys.get(id as usize);
            let is_idle = key.is_some_and(|key| key.users == 0 && key.since == since);
            if is_idle && !at_once && since + LINGER > now {
                break;
            }
            self.idle.pop_front();
            if is_idle {
                close(self.forget(id, topics, out));
                if at_once {
                    break;
                }
            }
        }
    }

    fn forget(&mut self, id: u32, topics: &mut Topics, out: &mut impl ClientOutbox) -> ListId {
        let key = self.keys.remove(id as usize);
        self.by_key.remove(&key.key);
        topics.remove(&key.key, out);
        let directory = &mut self.directories[key.directory as usize];
        directory.keys -= 1;
        if directory.keys == 0 {
            topics.remove(&directory.topic, out);
            let directory = self.directories.remove(key.directory as usize);
            self.by_topic.remove(&directory.topic);
        }
        key.held
    }

    /// When something here must be looked at.
    /// Waiting keys are taken for live after `patience`.
    pub(crate) fn next_deadline(&self, patience: Duration) -> Time {
        let idle = self.idle.front().map_or(Time::NEVER, |&(since, _)| since + LINGER);
        let waiting = self.keys.iter().filter(|(_, key)| !key.is_live && key.users > 0);
        waiting.map(|(_, key)| key.since + patience).fold(idle, Time::min)
    }
}
