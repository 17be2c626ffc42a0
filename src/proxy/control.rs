//! Commands over a control socket: zmq_proxy_steerable(3).

use std::fmt::Write;

use super::ProxyStats;
use crate::message::{Message, Multipart};
use crate::socket::SocketType;

/// What can be asked of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Pause,
    Resume,
    Terminate,
    Statistics,
}

impl Command {
    /// libzmq's words, in one frame.
    pub(super) fn parse(message: Message<'_>) -> Option<Command> {
        match message.frames() {
            [b"PAUSE"] => Some(Command::Pause),
            [b"RESUME"] => Some(Command::Resume),
            [b"TERMINATE"] => Some(Command::Terminate),
            [b"STATISTICS"] => Some(Command::Statistics),
            _ => None,
        }
    }
}

/// What is sent back to one who gave a command: to STATISTICS eight frames, as libzmq
/// does. REP must answer everything: what is done with an empty message, as libzmq does
/// from 4.3.5 on, and what is no command with a text that says so. `None`: nothing.
pub(super) fn answer(
    command: Option<Command>,
    control: SocketType,
    stats: &ProxyStats,
) -> Option<Multipart> {
    let is_rep = control == SocketType::Rep;
    match command {
        Some(Command::Statistics) if is_rep || control == SocketType::Pair => {
            Some(stats.libzmq().iter().map(|count| count.to_ne_bytes().to_vec()).collect())
        }
        Some(_) => is_rep.then(|| Multipart::from([""])),
        None => is_rep.then(|| Multipart::from([EXPECTED])),
    }
}

const EXPECTED: &str = "expected PAUSE, RESUME, TERMINATE or STATISTICS";

/// What is wrong with a message that is no command, for the log.
pub(super) fn problem(message: Message<'_>) -> String {
    let mut text = format!("{EXPECTED}, got {} frames", message.len());
    if let [frame] = message.frames() {
        text.truncate(EXPECTED.len());
        let shown = &frame[..frame.len().min(20)];
        // Writing to a string cannot fail.
        let _ = write!(text, ", got \"{}\"", shown.escape_ascii());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_themselves_are_commands() {
        assert_eq!(Command::parse(Message::new(&[b"PAUSE"])), Some(Command::Pause));
        for other in [&b"PAUSED"[..], b"pause", b"", b"PAUSE\0"] {
            assert_eq!(Command::parse(Message::new(&[other])), None);
        }
        assert_eq!(Command::parse(Message::new(&[b"PAUSE", b""])), None);
        let text = problem(Message::new(&[b"\xffPAUSE"]));
        assert!(text.ends_with("got \"\\xffPAUSE\""), "{text}");
        assert!(problem(Message::new(&[b"PAUSE", b""])).ends_with("got 2 frames"));
    }

    #[test]
    fn whoever_must_be_answered_is() {
        let stats = ProxyStats { captured: 3, ..ProxyStats::default() };
        for command in [Command::Pause, Command::Resume, Command::Terminate] {
            let empty = Some(Multipart::from([""]));
            assert_eq!(answer(Some(command), SocketType::Rep, &stats), empty);
            assert_eq!(answer(Some(command), SocketType::Pair, &stats), None);
        }
        for (control, frames) in [
            (SocketType::Rep, Some(8)),
            (SocketType::Pair, Some(8)),
            (SocketType::Pull, None),
            (SocketType::Sub, None),
        ] {
            let answer = answer(Some(Command::Statistics), control, &stats);
            assert_eq!(answer.map(|message| message.len()), frames, "{control}");
        }
    }
}
