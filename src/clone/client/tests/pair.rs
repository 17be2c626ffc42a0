//! A client of two servers, one of which is active: it finds that one, and nothing that
//! was reported safe is lost when it dies.

mod finding;
mod net;
mod random;
mod safety;
mod takeover;
mod world;
