//! What the benches share.

#![allow(dead_code, reason = "each bench uses its own part of this")]

pub(crate) mod alloc;
pub(crate) mod bare;
pub(crate) mod cores;
pub(crate) mod measure;
pub(crate) mod uuid;
