//! Pollux.

pub mod clone;
pub mod message;
pub mod socket;
pub mod time;

pub use message::{Frames, Message, Multipart};
pub use time::Time;
