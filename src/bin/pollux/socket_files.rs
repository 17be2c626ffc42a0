//! [`SocketFiles`]: what ipc endpoints leave in the file system, until the end.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

/// The socket files of ipc endpoints that are bound, removed when this is dropped: libzmq
/// leaves them behind.
#[derive(Debug)]
pub(crate) struct SocketFiles {
    files: Vec<SocketFile>,
}

#[derive(Debug, PartialEq, Eq)]
struct SocketFile {
    path: PathBuf,
    /// Device and number: another process may have bound there since, if it did not look.
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: PathBuf) -> Option<SocketFile> {
        let metadata = fs::symlink_metadata(&path).ok()?;
        let identity = (metadata.dev(), metadata.ino());
        metadata.file_type().is_socket().then_some(SocketFile { path, identity })
    }
}

impl SocketFiles {
    /// Those of these endpoints, which are bound by now; others than ipc have none.
    pub(crate) fn of<'a>(endpoints: impl IntoIterator<Item = &'a str>) -> SocketFiles {
        let paths = endpoints.into_iter().filter_map(|endpoint| endpoint.strip_prefix("ipc://"));
        // Names in the abstract namespace are no files.
        let paths = paths.filter(|path| !path.starts_with('@'));
        SocketFiles { files: paths.filter_map(|path| SocketFile::at(path.into())).collect() }
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for file in self.files.drain(..) {
            if SocketFile::at(file.path.clone()).as_ref() == Some(&file)
                && let Err(error) = fs::remove_file(&file.path)
            {
                log::warn!("{}: could not be removed: {error}", file.path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_our_own_sockets_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let [ours, theirs, file] =
            ["ours", "theirs", "file"].map(|name| directory.path().join(name));
        let endpoints = [&ours, &theirs, &file].map(|path| format!("ipc://{}", path.display()));
        let bound = [&ours, &theirs].map(|path| UnixListener::bind(path).unwrap());
        fs::write(&file, "no socket").unwrap();
        let files =
            SocketFiles::of(endpoints.iter().map(String::as_str).chain(["ipc://@x", "tcp://a:1"]));
        assert_eq!(files.files.len(), 2);
        // Somebody takes the place of one of them, while it still exists elsewhere.
        fs::rename(&theirs, directory.path().join("moved")).unwrap();
        let taken = UnixListener::bind(&theirs).unwrap();
        drop(files);
        assert!(!ours.exists() && theirs.exists() && file.exists());
        drop((bound, taken));
    }
}
