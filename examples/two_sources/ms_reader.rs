//! By hand: ask each socket in turn, sleep when both are empty. The sleep has a limit, and its
//! length is the price: a message waits for it, or the processor is kept busy. So it is with
//! Ctrl-C, for a signal that comes just before the sleep does not end it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pollux::Message;
use pollux::socket::{Frame, Socket};
use signal_hook::consts::{SIGINT, SIGTERM};

const SLEEP: Duration = Duration::from_millis(1);

/// Everything that waits in one socket. The first one has priority over the second, and can
/// starve it: no budget is kept here.
fn drain(source: &str, socket: &Socket, frames: &mut Vec<Frame>) -> io::Result<bool> {
    let mut any = false;
    while socket.receive_frames(frames)? {
        let parts: Vec<&[u8]> = frames.iter().map(|frame| &**frame).collect();
        super::show(source, Message::new(&parts));
        any = true;
    }
    Ok(any)
}

pub(crate) fn run(tasks: &str, updates: &str) -> io::Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    let (receiver, subscriber) = super::connect(tasks, updates)?;
    let mut frames = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let tasks = drain("task", &receiver, &mut frames)?;
        let updates = drain("update", &subscriber, &mut frames)?;
        if !tasks && !updates {
            std::thread::sleep(SLEEP);
        }
    }
    Ok(())
}
