//! The files below a directory, each as a key.
//!
//! In order of names. A link to a file is read; a link to a directory is not
//! followed, so that there are no loops and nothing is read twice.

use std::ffi::OsString;
use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::vec;

use pollux::clone::{Limits, check_key};

use super::input::{Item, Name, Pair};

/// Walks a tree, a directory at a time.
#[derive(Debug)]
pub(super) struct Directory {
    prefix: Vec<u8>,
    limits: Limits,
    /// The directories above, outermost first.
    open: Vec<Level>,
    root: Option<PathBuf>,
}

/// What is left of one directory.
#[derive(Debug)]
struct Level {
    path: PathBuf,
    /// What its keys begin with.
    prefix: Vec<u8>,
    names: vec::IntoIter<OsString>,
}

impl Directory {
    /// What lies below `root`, under keys that begin with `prefix`; `limits` are
    /// those of the broker.
    pub(super) fn new(root: PathBuf, prefix: Vec<u8>, limits: Limits) -> Directory {
        Directory { prefix, limits, open: Vec::new(), root: Some(root) }
    }

    fn enter(&mut self, path: PathBuf, prefix: Vec<u8>) -> Option<Item> {
        match names(&path) {
            Ok(names) => {
                self.open.push(Level { path, prefix, names: names.into_iter() });
                None
            }
            Err(error) => {
                Some(Item::Unreadable(Name::File(path), format!("cannot be read: {error}")))
            }
        }
    }

    /// The next name, wherever it is.
    fn next_name(&mut self) -> Option<(PathBuf, Vec<u8>)> {
        while let Some(level) = self.open.last_mut() {
            if let Some(name) = level.names.next() {
                let key = [&level.prefix, name.as_bytes()].concat();
                return Some((level.path.join(name), key));
            }
            self.open.pop();
        }
        None
    }

    /// What a name stands for; `None`: a directory that can be entered.
    fn visit(&mut self, path: PathBuf, key: Vec<u8>) -> Option<Item> {
        let kind = match kind(&path) {
            Ok(kind) => kind,
            Err(error) => {
                return Some(Item::Unreadable(
                    Name::File(path),
                    format!("cannot be read: {error}"),
                ));
            }
        };
        let name = Name::File(path.clone());
        match kind {
            Kind::Directory => self.enter(path, [&key[..], b"/"].concat()),
            Kind::File => Some(match self.read(&path, &key) {
                Ok(Ok(value)) => Item::Pair(Pair { name, key, value, ttl: None }),
                Ok(Err(reason)) => Item::Skipped(name, reason),
                Err(error) => Item::Unreadable(name, format!("cannot be read: {error}")),
            }),
            Kind::Other(reason) => Some(Item::Skipped(name, reason.to_owned())),
        }
    }

    /// The content of a file, or why it can be no value, or its path no key.
    fn read(&self, path: &Path, key: &[u8]) -> io::Result<Result<Vec<u8>, String>> {
        if let Err(error) = check_key(key, &self.limits) {
            return Ok(Err(error.to_string()));
        }
        let limit = self.limits.max_value as u64;
        let file = File::open(path)?;
        let too_large =
            |size: u64| Ok(Err(format!("expected a value of at most {limit} bytes, got {size}")));
        let size = file.metadata()?.len();
        if size > limit {
            return too_large(size);
        }
        let mut value = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        // It may have grown meanwhile.
        file.take(limit.saturating_add(1)).read_to_end(&mut value)?;
        match value.len() as u64 {
            0 => Ok(Err("empty: an empty value is none".to_owned())),
            size if size > limit => too_large(size),
            _ => Ok(Ok(value)),
        }
    }
}

impl Iterator for Directory {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if let Some(root) = self.root.take() {
            let prefix = self.prefix.clone();
            if let Some(item) = self.enter(root, prefix) {
                return Some(item);
            }
        }
        loop {
            let (path, key) = self.next_name()?;
            if let Some(item) = self.visit(path, key) {
                return Some(item);
            }
        }
    }
}

enum Kind {
    File,
    Directory,
    /// Nothing to load, and why.
    Other(&'static str),
}

/// What is at `path`, a link's target if that is a file.
fn kind(path: &Path) -> io::Result<Kind> {
    let plain = |file_type: FileType| match file_type {
        _ if file_type.is_file() => Kind::File,
        _ if file_type.is_dir() => Kind::Directory,
        // To open a pipe would wait for a writer.
        _ => Kind::Other("no file"),
    };
    let file_type = fs::symlink_metadata(path)?.file_type();
    if !file_type.is_symlink() {
        return Ok(plain(file_type));
    }
    match fs::metadata(path) {
        Ok(target) => Ok(match plain(target.file_type()) {
            Kind::Directory => Kind::Other("a link to a directory"),
            other => other,
        }),
        // Not there, or a loop of links.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Err(_) => Ok(Kind::Other("a link to nothing")),
    }
}

fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let mut names =
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn walk(root: &Path, limits: Limits) -> Vec<String> {
        Directory::new(root.to_owned(), b"/p/".to_vec(), limits)
            .map(|item| match item {
                Item::Pair(pair) => {
                    format!("{}={}", pair.key.escape_ascii(), pair.value.escape_ascii())
                }
                Item::Skipped(name, reason) => {
                    let name = name.to_string();
                    let below = name.strip_prefix(root.to_str().unwrap()).unwrap();
                    format!("{below}: {reason}")
                }
                other => panic!("unexpected: {other:?}"),
            })
            .collect()
    }

    fn limits(max_key: usize, max_value: usize) -> Limits {
        let mut limits = Limits::default();
        limits.max_key = max_key;
        limits.max_value = max_value;
        limits
    }

    #[test]
    fn each_file_is_a_key_and_the_rest_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let write = |name: &str, content: &[u8]| fs::write(root.join(name), content).unwrap();
        fs::create_dir_all(root.join("a/deep")).unwrap();
        write("a/deep/file", b"\0\xff");
        write("a/long-name-of-a-file", b"x");
        write("b", b"12345678");
        write("c", b"123456789");
        write("control\x01", b"x");
        write("empty", b"");
        symlink("b", root.join("link")).unwrap();
        symlink("..", root.join("a/loop")).unwrap();
        symlink("nowhere", root.join("broken")).unwrap();
        symlink("self", root.join("self")).unwrap();
        let _socket = UnixListener::bind(root.join("socket")).unwrap();

        let found = walk(root, limits(16, 8));
        assert_eq!(
            found,
            [
                "/p/a/deep/file=\\x00\\xff",
                "/a/long-name-of-a-file: key: expected 1 to 16 bytes, got 24",
                "/a/loop: a link to a directory",
                "/p/b=12345678",
                "/broken: a link to nothing",
                "/c: expected a value of at most 8 bytes, got 9",
                "/control\\u{1}: key: control byte 0x01 at position 10",
                "/empty: empty: an empty value is none",
                "/p/link=12345678",
                "/self: a link to nothing",
                "/socket: no file",
            ]
        );
    }

    #[test]
    fn a_prefix_may_be_anything_that_keys_begin_with() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Z"), "x").unwrap();
        let keys = |prefix: &str| {
            Directory::new(dir.path().to_owned(), prefix.into(), Limits::default())
                .map(|item| match item {
                    Item::Pair(pair) => String::from_utf8(pair.key).unwrap(),
                    Item::Skipped(_, reason) => reason,
                    other => panic!("unexpected: {other:?}"),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(""), ["Z"]);
        assert_eq!(keys("/x-"), ["/x-Z"]);
        assert!(keys("HUG")[0].contains("reserved"), "{:?}", keys("HUG"));
    }

    #[test]
    fn a_directory_that_is_gone_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let items: Vec<_> = Directory::new(gone, Vec::new(), Limits::default()).collect();
        assert!(matches!(&items[..], [Item::Unreadable(..)]), "{items:?}");
    }
}
