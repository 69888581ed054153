//! Runs each target on its corpus, and on inputs changed from it.
//!
//! `FUZZ_INPUTS` sets the number of changed inputs for each target.

use std::{
    env, fs, panic,
    path::{Path, PathBuf},
};

use fuzz::{mutator::Mutator, targets};

/// The default number of changed inputs for each target.
const INPUTS: usize = 5_000;

const SEED: u64 = 0x2026_1128;

macro_rules! corpora {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                run(stringify!($target), targets::$target);
            }
        )*

        #[test]
        fn each_corpus_has_a_target() {
            let corpora = fs::read_dir(corpus_folder()).expect("the corpora");
            let names = corpora.map(|corpus| corpus.expect("a corpus").file_name());
            let mut names: Vec<_> = names.collect();
            names.sort();
            assert_eq!(names, [$(stringify!($target)),*]);
        }
    };
}

corpora!(accept conditions cursor key link packed path prefer record retry_after);

fn run(name: &str, target: fn(&[u8])) {
    let inputs = corpus(name);
    for input in &inputs {
        check(target, input);
    }
    let count = env::var("FUZZ_INPUTS").map_or(INPUTS, |count| count.parse().expect("a number"));
    let mut mutator = Mutator::new(SEED);
    for _ in 0..count {
        check(target, &mutator.mutate(&inputs));
    }
}

/// Runs a target, and prints the input if it panics.
fn check(target: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = panic::catch_unwind(|| target(input)) {
        eprintln!("the input: b\"{}\"", input.escape_ascii());
        panic::resume_unwind(panic);
    }
}

/// Returns the files of a corpus in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = corpus_folder().join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a corpus")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| fs::read(file).expect("a file"))
        .collect()
}

fn corpus_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}
