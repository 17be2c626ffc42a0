//! What goes to stdout.

use std::io::{self, Write};

use crate::exit::Failure;

/// Prints one JSON object on a line of its own.
pub(crate) fn json(object: &serde_json::Value) -> Result<(), Failure> {
    line(&object.to_string())
}

/// Prints a line and hands it on at once.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}
