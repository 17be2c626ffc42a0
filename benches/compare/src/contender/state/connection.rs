//! A connection without a library between: lines with lengths (Redis, NATS), or frames
//! with lengths (ZMTP).

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::Outcome;

/// A stream with buffers for both directions.
pub(super) struct Connection {
    input: Option<Input>,
    stream: TcpStream,
    /// Different for each connection: its port here.
    name: String,
    out: Vec<u8>,
}

/// What has been read, `buffer[start..end]` of it not yet taken.
struct Input {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// Reads at least once, behind what waits.
    #[cold]
    fn read(&mut self) -> Outcome<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.end, 0);
        }
        match self.stream.read(&mut self.buffer[self.end..])? {
            0 => Err("the server has closed".into()),
            len => {
                self.end += len;
                Ok(())
            }
        }
    }

    /// The next `len` bytes, where they lie.
    #[inline]
    fn take(&mut self, len: usize) -> Outcome<&[u8]> {
        while self.end - self.start < len {
            self.read()?;
        }
        self.start += len;
        Ok(&self.buffer[self.start - len..self.start])
    }
}

impl Connection {
    pub(super) fn connect(address: &str) -> Outcome<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        // What fails on the other side is told, not waited for.
        stream.set_read_timeout(Some(SILENCE))?;
        let buffer = vec![0; 256 * 1024];
        let input = Some(Input { stream: stream.try_clone()?, buffer, start: 0, end: 0 });
        let name = stream.local_addr()?.port().to_string();
        Ok(Connection { input, stream, name, out: Vec::new() })
    }

    /// A name that no other connection to that server has.
    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    /// Room for what goes out with the next [`flush`](Connection::flush).
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub(super) fn flush(&mut self) -> Outcome<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// The next line, without its end.
    #[inline]
    pub(super) fn line(&mut self) -> Outcome<&[u8]> {
        let input = self.input.as_mut().ok_or(ELSEWHERE)?;
        let mut looked_at = 0;
        let len = loop {
            let waiting = &input.buffer[input.start..input.end];
            if let Some(at) = waiting[looked_at..].iter().position(|byte| *byte == b'\n') {
                break looked_at + at + 1;
            }
            looked_at = waiting.len();
            input.read()?;
        };
        input.take(len)?.strip_suffix(b"\r\n").ok_or_else(|| "no line".into())
    }

    /// The next `len` bytes, which a line's end follows.
    #[inline]
    pub(super) fn body(&mut self, len: usize) -> Outcome<&[u8]> {
        Ok(&self.exactly(len + 2)?[..len])
    }

    /// The next `len` bytes.
    #[inline]
    pub(super) fn exactly(&mut self, len: usize) -> Outcome<&[u8]> {
        self.input.as_mut().ok_or(ELSEWHERE)?.take(len)
    }

    /// A thread takes and forgets what comes, until the connection ends.
    pub(super) fn forget_input(&mut self) {
        if let Some(mut input) = self.input.take() {
            thread::spawn(move || {
                loop {
                    match input.stream.read(&mut input.buffer) {
                        Ok(1..) => {}
                        // Nothing came for a while.
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        _ => return,
                    }
                }
            });
        }
    }
}

const ELSEWHERE: &str = "it is read elsewhere";

/// How long a server may say nothing while something is expected of it.
const SILENCE: Duration = Duration::from_secs(10);

/// The number that `digits` show.
pub(super) fn parse(digits: &[u8]) -> Outcome<usize> {
    Ok(std::str::from_utf8(digits)?.trim().parse()?)
}
