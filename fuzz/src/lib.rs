//! What the fuzz targets do with an input.
//!
//! A target of libFuzzer is one call of `run`; the test `corpus` of the library
//! includes this file and makes the same calls, with the stable compiler, for each
//! input that is kept.

mod broker_checks;
pub mod broker_machine;
pub mod client_machine;
mod input;
pub mod kvmsg_decode;
pub mod load_file;
pub mod properties;
pub mod reactor_script;
pub mod relay_machine;
pub mod store_model;
