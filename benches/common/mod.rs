//! What the benches share.

#![allow(dead_code, reason = "each bench uses its own part of this")]

pub mod alloc;
pub mod bare;
pub mod measure;
