//! Copies the store, with `use` lines that name the crate instead of its modules.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

const STORE: &str = "../../src/store/nats";

fn main() {
    println!("cargo::rerun-if-changed={STORE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let copy = out.join("nats");
    // A file that the store no longer has must not stay.
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir_all(&copy).expect("the folder is writable");
    for file in fs::read_dir(STORE).expect("the store's folder") {
        let file = file.expect("the store's folder").path();
        let name = file.file_name().expect("a file has a name");
        let text = fs::read_to_string(&file).expect("a source file");
        write(&copy.join(name), &outside(&text));
    }
    write(&out.join("store.rs"), "pub mod nats;\n");
}

/// Returns the source as it is outside the crate: only `use` lines change.
fn outside(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let indent = line.len() - line.trim_start().len();
        let (before, statement) = line.split_at(indent);
        for start in ["use crate::", "pub use crate::"] {
            if let Some(path) = statement.strip_prefix(start) {
                let start = start.replace("crate", "tower_accepted");
                return format!("{before}{start}{path}\n");
            }
        }
        format!("{line}\n")
    });
    lines.collect()
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("the folder is writable");
}
