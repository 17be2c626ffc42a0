//! Pollux.

pub mod clone;
pub mod message;
pub mod reactor;
pub mod socket;
pub mod time;

pub use message::{Frames, Message, Multipart};
pub use reactor::{Context, Flow, Reactor};
pub use time::Time;
