//! A connection whose protocol is lines with lengths: Redis and NATS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;

use super::Outcome;

/// A stream with buffers for both directions.
pub(super) struct Text {
    reader: Option<BufReader<TcpStream>>,
    stream: TcpStream,
    /// Different for each connection: its port here.
    name: String,
    out: Vec<u8>,
    line: Vec<u8>,
    body: Vec<u8>,
}

impl Text {
    pub(super) fn connect(address: &str) -> Outcome<Text> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let reader = Some(BufReader::with_capacity(256 * 1024, stream.try_clone()?));
        let name = stream.local_addr()?.port().to_string();
        Ok(Text { reader, stream, name, out: Vec::new(), line: Vec::new(), body: Vec::new() })
    }

    /// A name that no other connection to that server has.
    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    /// Room for what goes out with the next [`flush`](Text::flush).
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub(super) fn flush(&mut self) -> Outcome<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// The next line, without its end.
    pub(super) fn line(&mut self) -> Outcome<&[u8]> {
        self.line.clear();
        let reader = self.reader.as_mut().ok_or("it is read elsewhere")?;
        reader.read_until(b'\n', &mut self.line)?;
        self.line.strip_suffix(b"\r\n").ok_or_else(|| "the server has closed".into())
    }

    /// The next `len` bytes, which a line's end follows.
    pub(super) fn body(&mut self, len: usize) -> Outcome<&[u8]> {
        self.body.resize(len + 2, 0);
        self.reader.as_mut().ok_or("it is read elsewhere")?.read_exact(&mut self.body)?;
        Ok(&self.body[..len])
    }

    /// A thread takes and forgets what comes, until the connection ends.
    pub(super) fn forget_input(&mut self) {
        if let Some(mut reader) = self.reader.take() {
            thread::spawn(move || {
                while let Ok(input) = reader.fill_buf()
                    && !input.is_empty()
                {
                    let len = input.len();
                    reader.consume(len);
                }
            });
        }
    }
}

/// The number that `digits` show.
pub(super) fn parse(digits: &[u8]) -> Outcome<usize> {
    Ok(std::str::from_utf8(digits)?.trim().parse()?)
}
