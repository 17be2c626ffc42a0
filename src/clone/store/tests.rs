use std::ops::ControlFlow;
use std::time::Duration;

use super::*;

/// A store to which changes are made under rising sequences.
struct Writer {
    store: Store,
}

impl Writer {
    fn new(limits: StoreLimits) -> Writer {
        Writer { store: Store::new(limits, Sequence::new(1, 0)) }
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), StoreFull> {
        self.put_until(key, value, None)
    }

    fn put_until(
        &mut self,
        key: &str,
        value: &str,
        deadline: Option<Time>,
    ) -> Result<(), StoreFull> {
        let sequence = self.store.sequence().next();
        let (key, value) = (key.as_bytes(), value.as_bytes());
        let properties = Properties::EMPTY;
        self.store.put(&Change { key, sequence, uuid: None, properties, value, deadline })
    }

    fn delete(&mut self, key: &str) -> bool {
        let sequence = self.store.sequence().next();
        self.store.delete(key.as_bytes(), sequence, None, Properties::EMPTY)
    }

    /// What a walk gives with slices of `budget`, as `key=value`, and how it ended.
    fn walk(&mut self, cursor: &mut Cursor, budget: usize) -> (Vec<String>, Walk) {
        let mut given = Vec::new();
        loop {
            let walk = self.store.walk(cursor, budget, |entry| {
                given.push(text(entry));
                ControlFlow::Continue(())
            });
            if walk != Walk::More {
                return (given, walk);
            }
        }
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        self.store.iter(prefix.as_bytes()).map(text).collect()
    }
}

fn text(entry: Entry<'_>) -> String {
    let text = String::from_utf8_lossy;
    format!("{}={}", text(entry.key), text(entry.value))
}

fn at(ms: u64) -> Time {
    Time::ZERO + Duration::from_millis(ms)
}

#[test]
fn a_full_walk_tells_keys_in_order_then_what_changed_meanwhile() {
    let mut writer = Writer::new(StoreLimits::default());
    for key in ["/b", "/a", "/c", "x"] {
        writer.put(key, "1").unwrap();
    }
    let mut cursor = writer.store.open(b"/", None).unwrap();
    assert_eq!(cursor.mode(), Mode::Full);
    let mut first = Vec::new();
    let walk = writer.store.walk(&mut cursor, 2, |entry| {
        first.push(text(entry));
        ControlFlow::Continue(())
    });
    assert_eq!((first.join(" "), walk), ("/a=1 /b=1".into(), Walk::More));
    writer.put("/a", "2").unwrap();
    writer.delete("/b");
    writer.put("y", "1").unwrap();
    let (rest, walk) = writer.walk(&mut cursor, 1);
    assert_eq!(rest.join(" "), "/c=1 /a=2 /b=");
    assert_eq!(walk, Walk::Done(Sequence::new(1, 7)));
    writer.store.close(cursor);
    assert_eq!(writer.store.cursors(), 0);
}
