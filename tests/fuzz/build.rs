//! Copies the crate's modules and makes their private items visible to the targets.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

const SOURCE: &str = "../../src";

/// The files of `store/nats` that need no client of NATS: the encodings.
const NATS_ENCODINGS: [&str; 8] = [
    "clock", "envelope", "error", "options", "record", "report", "request", "response",
];

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let copy = out.join("source");
    // A file that the crate no longer has must not stay.
    let _ = fs::remove_dir_all(&copy);
    copy_folder(Path::new(SOURCE), &copy);
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder is writable");
    for entry in fs::read_dir(from).expect("a folder of the crate") {
        let entry = entry.expect("a folder of the crate").path();
        let name = entry.file_name().expect("an entry has a name");
        if entry.is_dir() {
            if name != "bin" {
                copy_folder(&entry, &to.join(name));
            }
            continue;
        }
        let text = fs::read_to_string(&entry).expect("a text file");
        let text = match entry.extension() {
            Some(extension) if extension == "rs" => visible(&entry, &text),
            _ => text,
        };
        fs::write(to.join(name), text).expect("the folder is writable");
    }
}

/// Returns a source file with modules, `pub(super)` items and top-level functions visible in the
/// crate.
///
/// Only whole lines change, so line numbers stay those of the original.
fn visible(file: &Path, text: &str) -> String {
    let file = file.strip_prefix(SOURCE).unwrap_or(file);
    let is_root = file == Path::new("lib.rs");
    if file == Path::new("store/nats/mod.rs") {
        let modules = NATS_ENCODINGS.map(|name| format!("pub(crate) mod {name};\n"));
        return modules.concat();
    }
    let lines = text.lines().map(|line| {
        // The root is included, and an included file has no inner docs or attributes. The guides
        // are left out.
        if is_root && (line.starts_with("//!") || line.starts_with("#!")) {
            return "\n".to_owned();
        }
        if is_root && line == "pub mod guide;" {
            return "mod guide {}\n".to_owned();
        }
        let is_private = ["mod ", "fn ", "async fn ", "const fn "]
            .iter()
            .any(|item| line.starts_with(item));
        let visibility = if is_private { "pub(crate) " } else { "" };
        // Tests of the modules run in the crate.
        let line = line
            .replace("pub(super)", "pub(crate)")
            .replace("#[cfg(test)]", "#[cfg(false)]");
        format!("{visibility}{line}\n")
    });
    lines.collect()
}
