//! `pollux dump`: the state as JSON lines.

use std::io::{self, BufWriter, Write};

use crate::args::{Common, DumpArgs};
use crate::exit::Failure;
use crate::get::{record, synced};
use crate::lines::write_line;
use crate::session;

/// `pollux dump`.
pub(crate) fn run(common: &Common, args: &DumpArgs) -> Result<(), Failure> {
    let subtree = &args.subtree.0;
    let session = synced(common, subtree)?;
    let client = session.app.client.machine();
    if let Some(failure) = session::outside(client, common.server(client.server()), subtree) {
        return Err(failure);
    }
    let now = session.reactor.now();
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let mut entries = client.iter(subtree);
    entries
        .try_for_each(|entry| write_line(&mut out, &record(&entry, now)))
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}
