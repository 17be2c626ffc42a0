//! By the loop: it sleeps until either socket, or a signal, has something; wakes at once; and
//! keeps either from starving the other.

use std::io;

use pollux::{Flow, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};

pub(crate) fn run(tasks: &str, updates: &str) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_signals(&[SIGINT, SIGTERM], |_, _, _| Ok(Flow::Stop))?;
    let (receiver, subscriber) = super::connect(tasks, updates)?;
    for (source, socket) in [("task", receiver), ("update", subscriber)] {
        reactor.on_message(socket, move |_, _, message| {
            super::show(source, message);
            Ok(Flow::Continue)
        })?;
    }
    reactor.run(&mut ())
}
