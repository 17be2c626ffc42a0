//! Any file into the reader of `pollux load`: each line is a record that is written
//! back as it was read, or an error that says something.
//!
//! The format belongs to the command and not to the library, whose interface it should
//! not widen; its file needs nothing of the rest of the command and is included here.

#[path = "../../src/bin/pollux/lines.rs"]
#[allow(dead_code, unused_imports)]
mod lines;

use self::lines::{parse_line, write_line};

pub fn run(input: &[u8]) {
    for line in input.split_inclusive(|&byte| byte == b'\n') {
        let record = match parse_line(line) {
            Ok(record) => record,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        let mut written = Vec::new();
        write_line(&mut written, &record).expect("a Vec takes everything");
        let ends = written.iter().position(|&byte| byte == b'\n');
        assert_eq!(ends, Some(written.len() - 1), "one line");
        assert!(std::str::from_utf8(&written).is_ok());
        assert_eq!(parse_line(&written), Ok(record));
    }
}
