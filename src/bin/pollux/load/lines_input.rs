//! JSON lines from a file or stdin.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::input::{Item, Name, Pair};
use crate::args::MAX_VALUE;
use crate::exit::Failure;
use crate::lines::parse_line;

/// The most bytes a line may have: the largest value, every byte of it written
/// as `\u0000`, and a key.
const MAX_LINE: u64 = 6 * MAX_VALUE as u64 + (64 << 10);

/// Lines, each with its number.
pub(super) struct LinesInput {
    reader: BufReader<Box<dyn Read + Send>>,
    /// Bytes in all, if that is known.
    pub(super) size: Option<u64>,
    number: u64,
    /// Where the last line ended.
    end: u64,
    line: Vec<u8>,
    /// The most bytes of one.
    max_line: u64,
    is_over: bool,
}

impl fmt::Debug for LinesInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinesInput")
            .field("size", &self.size)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// Opens a file; `-` or none is stdin.
pub(super) fn open(path: Option<&Path>) -> Result<LinesInput, Failure> {
    match path.filter(|path| *path != Path::new("-")) {
        None => Ok(LinesInput::new(Box::new(io::stdin()), None)),
        Some(path) => {
            let failed = |error| Failure::Usage(format!("{}: {error}", path.display()));
            let file = File::open(path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            if metadata.is_dir() {
                return Err(Failure::Usage(format!(
                    "{}: a directory; load it with --dir",
                    path.display()
                )));
            }
            Ok(LinesInput::new(Box::new(file), Some(metadata.len()).filter(|&size| size > 0)))
        }
    }
}

impl LinesInput {
    fn new(reader: Box<dyn Read + Send>, size: Option<u64>) -> LinesInput {
        let reader = BufReader::with_capacity(64 << 10, reader);
        LinesInput {
            reader,
            size,
            number: 0,
            end: 0,
            line: Vec::new(),
            max_line: MAX_LINE,
            is_over: false,
        }
    }

    /// Whether the next line has yet to be read from the system.
    pub(super) fn would_wait(&self) -> bool {
        !self.reader.buffer().contains(&b'\n')
    }

    /// Reads one line, or as much of it as any may have.
    fn read_line(&mut self) -> io::Result<usize> {
        self.line.clear();
        // One byte more tells that it is too long.
        let mut stream = self.reader.by_ref().take(self.max_line + 1);
        let read = stream.read_until(b'\n', &mut self.line)?;
        self.number += 1;
        self.end += read as u64;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        }
        Ok(read)
    }
}

impl Iterator for LinesInput {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        while !self.is_over {
            let read = self.read_line();
            let name = Name::Line { number: self.number, end: self.end };
            match read {
                Ok(0) => self.is_over = true,
                Ok(read) if read as u64 > self.max_line => {
                    self.is_over = true;
                    return Some(Item::Bad(name, format!("over {} bytes long", self.max_line)));
                }
                Ok(_) if self.line.trim_ascii().is_empty() => {}
                Ok(_) => match parse_line(&self.line) {
                    Ok(record) => {
                        return Some(Item::Pair(Pair {
                            name,
                            key: record.key.into_owned(),
                            value: record.value.into_owned(),
                            ttl: record.ttl,
                        }));
                    }
                    Err(error) => {
                        self.is_over = true;
                        return Some(Item::Bad(name, error.to_string()));
                    }
                },
                Err(error) => {
                    self.is_over = true;
                    return Some(Item::Bad(name, format!("cannot be read: {error}")));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &'static [u8]) -> Vec<String> {
        LinesInput::new(Box::new(text), None)
            .map(|item| match item {
                Item::Pair(pair) => format!("{} {}", pair.name, pair.key.escape_ascii()),
                Item::Bad(name, reason) => format!("{name} bad: {reason}"),
                other => panic!("unexpected: {other:?}"),
            })
            .collect()
    }

    #[test]
    fn empty_lines_count_and_say_nothing() {
        let text = b"\n{\"key\":\"/a\",\"value\":\"1\"}\r\n\n  \n{\"key\":\"/b\",\"value\":\"2\"}";
        assert_eq!(items(text), ["line 2 /a", "line 5 /b"]);
    }

    #[test]
    fn nothing_comes_after_a_bad_line() {
        let text =
            b"{\"key\":\"/a\",\"value\":\"1\"}\nnonsense\n{\"key\":\"/b\",\"value\":\"2\"}\n";
        let items = items(text);
        assert_eq!(items.len(), 2);
        assert!(items[1].starts_with("line 2 bad: expected a JSON object"), "{}", items[1]);
    }

    #[test]
    fn a_line_over_the_limit_is_given_up() {
        let line = "{\"key\":\"/a\",\"value\":\"1\"}\n";
        let mut input = LinesInput::new(Box::new(io::Cursor::new(line.repeat(2))), None);
        input.max_line = line.len() as u64;
        assert!(matches!(input.next(), Some(Item::Pair(_))), "as long as may be");
        input.max_line -= 1;
        let over = input.next();
        assert!(matches!(over, Some(Item::Bad(_, reason)) if reason == "over 24 bytes long"));
        assert!(input.next().is_none());
    }

    #[test]
    fn an_error_of_reading_is_told() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("unplugged"))
            }
        }
        let mut input = LinesInput::new(Box::new(Broken), None);
        assert!(matches!(input.next(), Some(Item::Bad(_, reason)) if reason.contains("unplugged")));
        assert!(input.next().is_none());
    }
}
