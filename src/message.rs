//! Messages as lists of frames: [`Message`] borrowed for the length of a
//! handler, [`Multipart`] owned, [`Frames`] for whatever can be sent.
//!
//! ZeroMQ moves *messages* of one or more *frames*, all or none. Nothing here
//! knows what carries them: the state machines and a second transport see
//! frames as plain bytes.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Index;

use bytes::Bytes;

/// Something with frames, which can be sent as one message.
///
/// Sending borrows, so a message that would block has never left its owner.
/// A message has at least one frame; sending an empty list is an error.
pub trait Frames {
    /// How many frames there are.
    fn frame_count(&self) -> usize;

    /// The bytes of frame `index`.
    ///
    /// # Panics
    /// If `index` is not below [`frame_count`](Frames::frame_count).
    fn frame(&self, index: usize) -> &[u8];
}

/// A whole message, borrowed: valid until the handler that got it returns.
///
/// Copying it costs two words. The bytes lie where the transport received
/// them; [`Message::to_multipart`] makes a copy that may be kept.
///
/// ```
/// use pollux::Message;
///
/// let frames: [&[u8]; 2] = [b"topic", b"body"];
/// let message = Message::new(&frames);
/// assert_eq!(message.len(), 2);
/// assert_eq!(&message[1], b"body");
/// assert_eq!(message.get(2), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    frames: &'a [&'a [u8]],
}

impl<'a> Message<'a> {
    /// A message of these frames.
    pub const fn new(frames: &'a [&'a [u8]]) -> Message<'a> {
        Message { frames }
    }

    /// How many frames there are; at least 1 for every message received.
    pub const fn len(self) -> usize {
        self.frames.len()
    }

    /// Whether there is no frame at all, which no received message is.
    pub const fn is_empty(self) -> bool {
        self.frames.is_empty()
    }

    /// Frame `index`, or `None` past the end.
    pub fn get(self, index: usize) -> Option<&'a [u8]> {
        self.frames.get(index).copied()
    }

    /// All frames, in order.
    pub const fn frames(self) -> &'a [&'a [u8]] {
        self.frames
    }

    /// The same message without its first `count` frames (an envelope), or
    /// without any frame if it has fewer.
    pub fn skip(self, count: usize) -> Message<'a> {
        Message::new(self.frames.get(count..).unwrap_or_default())
    }

    /// The bytes of all frames together.
    pub fn bytes(self) -> usize {
        self.frames.iter().map(|frame| frame.len()).sum()
    }

    /// A copy that may be kept. Each frame is copied, so that a small frame
    /// does not pin the transport's whole receive buffer.
    pub fn to_multipart(self) -> Multipart {
        self.frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect()
    }
}

impl Index<usize> for Message<'_> {
    type Output = [u8];
    fn index(&self, index: usize) -> &[u8] {
        self.frames[index]
    }
}

impl Frames for Message<'_> {
    fn frame_count(&self) -> usize {
        self.frames.len()
    }
    fn frame(&self, index: usize) -> &[u8] {
        self.frames[index]
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug_frames(self, f)
    }
}

/// A message that owns its frames.
///
/// Frames are [`Bytes`]: cheap to clone and to move on. Envelopes are pushed
/// and popped at the front.
///
/// ```
/// use pollux::Multipart;
///
/// let mut reply = Multipart::from(["", "hello"]);
/// reply.push_front("client-7");
/// assert_eq!(reply.len(), 3);
/// assert_eq!(reply.pop_front().as_deref(), Some(&b"client-7"[..]));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Multipart {
    frames: VecDeque<Bytes>,
}

impl Multipart {
    /// A message without frames yet.
    pub fn new() -> Multipart {
        Multipart::default()
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is no frame; such a message cannot be sent.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frame `index`, or `None` past the end.
    pub fn get(&self, index: usize) -> Option<&Bytes> {
        self.frames.get(index)
    }

    /// Adds a frame at the end.
    pub fn push_back(&mut self, frame: impl Into<Bytes>) {
        self.frames.push_back(frame.into());
    }

    /// Adds a frame in front, as for an envelope.
    pub fn push_front(&mut self, frame: impl Into<Bytes>) {
        self.frames.push_front(frame.into());
    }

    /// Takes the first frame off.
    pub fn pop_front(&mut self) -> Option<Bytes> {
        self.frames.pop_front()
    }

    /// Takes the last frame off.
    pub fn pop_back(&mut self) -> Option<Bytes> {
        self.frames.pop_back()
    }

    /// The bytes of all frames together.
    pub fn bytes(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum()
    }

    /// Whether it is a signal: one frame without content, whose coming is all it says.
    pub fn is_signal(&self) -> bool {
        self.frames.len() == 1 && self.frames[0].is_empty()
    }

    /// Puts `address` and an empty frame in front: the envelope behind which REP and
    /// those who speak with it expect the body.
    pub fn wrap(&mut self, address: impl Into<Bytes>) {
        self.push_front(Bytes::new());
        self.push_front(address);
    }

    /// Takes off everything up to the first empty frame, and that frame itself: the
    /// envelope as REP sees it. Without an empty frame there is none, and nothing is
    /// taken.
    ///
    /// ```
    /// use pollux::Multipart;
    ///
    /// let mut request = Multipart::from(["hop 2", "hop 1", "", "body", ""]);
    /// let envelope = request.unwrap_envelope().unwrap();
    /// assert_eq!(request, Multipart::from(["body", ""]));
    /// let reply: Multipart = envelope.into_iter().chain(["reply".into()]).collect();
    /// assert_eq!(reply, Multipart::from(["hop 2", "hop 1", "", "reply"]));
    /// ```
    pub fn unwrap_envelope(&mut self) -> Option<Multipart> {
        let end = self.frames.iter().position(Bytes::is_empty)?;
        let body = self.frames.split_off(end + 1);
        Some(Multipart { frames: std::mem::replace(&mut self.frames, body) })
    }

    /// All frames, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.frames.iter()
    }
}

impl Index<usize> for Multipart {
    type Output = Bytes;
    /// # Panics
    /// If there is no such frame.
    fn index(&self, index: usize) -> &Bytes {
        &self.frames[index]
    }
}

impl<B: Into<Bytes>> Extend<B> for Multipart {
    fn extend<I: IntoIterator<Item = B>>(&mut self, frames: I) {
        self.frames.extend(frames.into_iter().map(Into::into));
    }
}

impl IntoIterator for Multipart {
    type Item = Bytes;
    type IntoIter = std::collections::vec_deque::IntoIter<Bytes>;
    fn into_iter(self) -> Self::IntoIter {
        self.frames.into_iter()
    }
}

impl<'a> IntoIterator for &'a Multipart {
    type Item = &'a Bytes;
    type IntoIter = std::collections::vec_deque::Iter<'a, Bytes>;
    fn into_iter(self) -> Self::IntoIter {
        self.frames.iter()
    }
}

impl Frames for Multipart {
    fn frame_count(&self) -> usize {
        self.frames.len()
    }
    fn frame(&self, index: usize) -> &[u8] {
        &self.frames[index]
    }
}

impl<B: Into<Bytes>> FromIterator<B> for Multipart {
    fn from_iter<I: IntoIterator<Item = B>>(frames: I) -> Multipart {
        Multipart { frames: frames.into_iter().map(Into::into).collect() }
    }
}

impl<B: Into<Bytes>, const N: usize> From<[B; N]> for Multipart {
    fn from(frames: [B; N]) -> Multipart {
        frames.into_iter().collect()
    }
}

impl fmt::Debug for Multipart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug_frames(self, f)
    }
}

/// One frame alone is a message, too.
macro_rules! single_frame {
    ($([$($generics:tt)*] $type:ty),*) => {$(
        impl<$($generics)*> Frames for $type {
            fn frame_count(&self) -> usize {
                1
            }
            fn frame(&self, index: usize) -> &[u8] {
                assert_eq!(index, 0, "a single frame was asked for frame {index}");
                self.as_ref()
            }
        }
    )*};
}
single_frame!([] [u8], [const N: usize] [u8; N], [] str, [] String, [] Bytes, [] Vec<u8>);

macro_rules! frame_list {
    ($([$($generics:tt)*] $type:ty),*) => {$(
        impl<$($generics)*> Frames for $type {
            fn frame_count(&self) -> usize {
                self.len()
            }
            fn frame(&self, index: usize) -> &[u8] {
                self[index].as_ref()
            }
        }
    )*};
}
frame_list!([] [&[u8]], [const N: usize] [&[u8]; N], [] [&str], [const N: usize] [&str; N]);
frame_list!([] [Bytes], [] [Vec<u8>]);

impl<F: Frames + ?Sized> Frames for &F {
    fn frame_count(&self) -> usize {
        (**self).frame_count()
    }
    fn frame(&self, index: usize) -> &[u8] {
        (**self).frame(index)
    }
}

fn debug_frames(frames: &impl Frames, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut list = f.debug_list();
    for index in 0..frames.frame_count() {
        list.entry(&Bytes::copy_from_slice(frames.frame(index)));
    }
    list.finish()
}
