//! Every input that the fuzz targets have learnt from, and every one that has failed,
//! once more: what the fuzzer found stays found, on the stable compiler, too.

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub)]
mod targets;

/// The files of a directory, in order; none if it is not there.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn replay(target: &str, run: fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let corpus = files(&fuzz.join("corpus").join(target));
    assert!(!corpus.is_empty(), "the corpus of {target} is missing");
    for file in corpus.into_iter().chain(files(&fuzz.join("regressions").join(target))) {
        let input = fs::read(&file).expect("a file");
        if let Err(panic) = panic::catch_unwind(|| run(&input)) {
            eprintln!("with {}", file.display());
            panic::resume_unwind(panic);
        }
    }
    // No input at all is one, too.
    run(&[]);
}

macro_rules! replays {
    ($($target:ident)*) => {
        const TARGETS: &[&str] = &[$(stringify!($target)),*];
        $(
        #[test]
        fn $target() {
            replay(stringify!($target), targets::$target::run);
        }
        )*
    };
}

/// Nothing that is kept is passed over.
#[test]
fn every_target_and_every_directory_is_replayed() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for dir in ["fuzz_targets", "corpus", "regressions"] {
        for path in files(&fuzz.join(dir)) {
            let name = path.file_stem().expect("a name").to_string_lossy();
            assert!(TARGETS.contains(&&*name), "{dir}: no test for {name}");
        }
    }
    assert_eq!(files(&fuzz.join("fuzz_targets")).len(), TARGETS.len());
}

replays! {
    kvmsg_decode
    properties
    broker_machine
    relay_machine
    client_machine
    store_model
    reactor_script
    load_file
}
