//! Messages on the way: kept once, however many receivers they have.

use std::rc::Rc;

use pollux::Message;
use pollux::clone::{KvMsg, Limits};

/// The frames of one message.
#[derive(Clone)]
pub(crate) struct Frames(Rc<Flat>);

struct Flat {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Frames {
    pub(crate) fn new(frames: &[&[u8]]) -> Frames {
        let mut ends = Vec::with_capacity(frames.len());
        let mut bytes = Vec::with_capacity(frames.iter().map(|frame| frame.len()).sum());
        for frame in frames {
            bytes.extend_from_slice(frame);
            ends.push(bytes.len());
        }
        Frames(Rc::new(Flat { bytes, ends }))
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(Message<'_>) -> R) -> R {
        let mut start = 0;
        let frame = |&end: &usize| &self.0.bytes[std::mem::replace(&mut start, end)..end];
        if self.0.ends.len() == 5 {
            // Nearly all of them.
            let ends = self.0.ends.iter();
            let mut frames: [&[u8]; 5] = [&[]; 5];
            frames.iter_mut().zip(ends.map(frame)).for_each(|(place, frame)| *place = frame);
            return f(Message::new(&frames));
        }
        let frames: Vec<&[u8]> = self.0.ends.iter().map(frame).collect();
        f(Message::new(&frames))
    }

    /// Whether it is the very same message, which came twice.
    pub(crate) fn is(&self, other: &Frames) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// For the trace of a run.
    pub(crate) fn text(&self) -> String {
        self.with(|message| match KvMsg::decode(message, &Limits::default()) {
            Ok(kvmsg) => format!("{kvmsg:?}"),
            Err(_) => {
                let frames = message.frames().iter().map(|frame| frame.escape_ascii().to_string());
                frames.collect::<Vec<_>>().join(" | ")
            }
        })
    }
}
