//! How a command ends: [`Failure`] and its exit codes.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// Why a command did not do what it was asked to. The text goes to stderr; it
/// says what happened and, where something can be done, what.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The key asked for is not there. Code 1.
    NotFound(String),
    /// Arguments or input that cannot be used. Code 2, which clap gives its
    /// own errors, too.
    Usage(String),
    /// No broker answered, or it stopped answering. Code 3.
    NoAnswer(String),
    /// The broker, or the system, refused. Code 4.
    Refused(String),
    /// Whoever read our output has had enough: an ordinary end.
    OutputClosed,
}

impl Failure {
    /// What the shell sees.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::OutputClosed => 0,
            Failure::NotFound(_) => 1,
            Failure::Usage(_) => 2,
            Failure::NoAnswer(_) => 3,
            Failure::Refused(_) => 4,
        }
    }

    /// An error of writing to stdout.
    pub(crate) fn output(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Refused(format!("the output could not be written: {error}")),
        }
    }

    /// An error of the loop or of its sockets: the system refused something.
    pub(crate) fn system(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::InvalidInput => Failure::Usage(error.to_string()),
            _ => Failure::Refused(error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotFound(text)
            | Failure::Usage(text)
            | Failure::NoAnswer(text)
            | Failure::Refused(text) => f.write_str(text),
            Failure::OutputClosed => f.write_str("the reader of the output has closed it"),
        }
    }
}

/// Tells the user and the shell how it ended.
pub(crate) fn report(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::OutputClosed) {
                eprintln!("pollux: {failure}");
            }
            ExitCode::from(failure.code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_an_ordinary_end_and_a_full_disk_is_not() {
        assert_eq!(Failure::output(&io::ErrorKind::BrokenPipe.into()).code(), 0);
        assert_eq!(Failure::output(&io::ErrorKind::StorageFull.into()).code(), 4);
    }
}
