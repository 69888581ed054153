//! Programs of other languages that read JSON and write JSON.

use std::{
    io::{ErrorKind, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

/// Runs a program on an input. Returns `None` if its interpreter is not installed.
pub(crate) fn run(program: &mut Command, input: &Value) -> Option<Value> {
    program.stdin(Stdio::piped());
    program.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match program.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: {:?} is not installed", program.get_program());
            return None;
        }
        Err(error) => panic!("{program:?}: {error}"),
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that fails early closes the pipe; its log says why.
    let written = stdin.write_all(input.to_string().as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("an output");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?}: {log}");
    written.expect("the program has read all");
    let output = serde_json::from_slice(&output.stdout);
    Some(output.expect("the program has written JSON"))
}

/// Returns the folder that `./test` installs clients in.
pub(crate) fn clients() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients")
}
