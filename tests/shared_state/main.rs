//! Brokers and clients on real sockets, in one process: what an application
//! sees of shared state.

mod basics;
mod changes;
mod descriptors;
mod hostile;
mod joins;
mod losses;
mod restarts;
#[path = "../world/mod.rs"]
mod world;
