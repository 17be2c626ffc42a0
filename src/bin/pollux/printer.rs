//! [`Printer`]: lines for a reader that perhaps does not read.

use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

/// Lines that wait for a reader; further ones are dropped.
const WAITING: usize = 256;

/// How long the end waits for a reader of the last lines.
const LAST_LINES: Duration = Duration::from_millis(200);

/// Writes lines on a thread of its own: a pipe that nobody reads, or a terminal that was
/// stopped, never holds up whoever prints.
#[derive(Debug, Clone)]
pub(crate) struct Printer {
    lines: SyncSender<Line>,
}

#[derive(Debug)]
enum Line {
    Bytes(Vec<u8>),
    /// Tell when everything before is written.
    Tell(SyncSender<()>),
}

/// Nobody will ever read again: the reader has gone.
#[derive(Debug)]
pub(crate) struct Gone;

impl Printer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub(crate) fn start(mut out: impl Write + Send + 'static) -> io::Result<Printer> {
        let (lines, waiting) = sync_channel(WAITING);
        thread::Builder::new().name("pollux-printer".to_owned()).spawn(move || {
            for line in waiting {
                match line {
                    Line::Bytes(bytes) => {
                        if let Err(error) = out.write_all(&bytes).and_then(|()| out.flush()) {
                            log::warn!("nothing more is printed: {error}");
                            return;
                        }
                    }
                    Line::Tell(written) => drop(written.send(())),
                }
            }
        })?;
        Ok(Printer { lines })
    }

    /// Hands a line over, its end included. False: it was dropped, for too many wait.
    pub(crate) fn print(&self, line: Vec<u8>) -> Result<bool, Gone> {
        match self.lines.try_send(Line::Bytes(line)) {
            Ok(()) => Ok(true),
            Err(TrySendError::Full(_)) => Ok(false),
            Err(TrySendError::Disconnected(_)) => Err(Gone),
        }
    }

    /// Waits until what was printed is written, for a moment at most.
    pub(crate) fn finish(&self) {
        let (written, told) = sync_channel(1);
        if self.lines.try_send(Line::Tell(written)).is_ok() {
            // Whoever does not read has had his time.
            let _ = told.recv_timeout(LAST_LINES);
        }
    }
}

/// The log, a record at a time.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) printer: Printer,
    /// Records dropped since one was last written.
    pub(crate) dropped: u64,
}

impl Write for Log {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let mut bytes = Vec::new();
        if self.dropped > 0 {
            writeln!(bytes, "pollux: {} lines were dropped, nobody read them", self.dropped)?;
        }
        bytes.extend_from_slice(record);
        match self.printer.print(bytes) {
            Ok(true) => self.dropped = 0,
            Ok(false) => self.dropped += 1,
            Err(Gone) => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender};

    use super::*;

    /// Takes a line when told to.
    struct Slow {
        go: Receiver<()>,
        written: SyncSender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.go.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.written.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Printer, SyncSender<()>, Receiver<Vec<u8>>) {
        let (reader, go) = sync_channel(10_000);
        let (written, lines) = sync_channel(10_000);
        (Printer::start(Slow { go, written }).unwrap(), reader, lines)
    }

    #[test]
    fn who_prints_never_waits_and_learns_what_was_dropped() {
        let (printer, reader, lines) = slow();
        let taken =
            (0..10 * WAITING).filter(|n| printer.print(format!("{n}\n").into_bytes()).unwrap());
        let taken: Vec<usize> = taken.collect();
        // One more may be with the thread.
        assert!((WAITING..=WAITING + 1).contains(&taken.len()), "{}", taken.len());
        taken.iter().for_each(|_| reader.send(()).unwrap());
        for n in taken {
            assert_eq!(lines.recv().unwrap(), format!("{n}\n").into_bytes(), "in order");
        }
        printer.finish();
        // The reader goes away; the thread learns of it with the next line.
        drop(reader);
        while printer.print(b"x\n".to_vec()).is_ok() {
            thread::yield_now();
        }
    }

    #[test]
    fn a_log_says_how_many_lines_are_missing() {
        let (printer, reader, lines) = slow();
        let mut log = Log { printer, dropped: 0 };
        while log.dropped < 3 {
            log.write_all(b"record\n").unwrap();
        }
        (0..2 * WAITING).for_each(|_| reader.send(()).unwrap());
        while log.dropped > 0 {
            log.write_all(b"last\n").unwrap();
        }
        let last = lines.iter().find(|line| line.ends_with(b"last\n")).unwrap();
        let text = String::from_utf8(last).unwrap();
        assert!(text.contains(" lines were dropped, nobody read them\nlast\n"), "{text}");
    }
}
