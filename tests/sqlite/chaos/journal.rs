//! The journal of calls, outside of the store: one line for each begin and each end.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    process,
    sync::Arc,
};

use parking_lot::Mutex;

/// Appends to the journal.
#[derive(Clone)]
pub(super) struct Journal(Arc<Mutex<File>>);

impl Journal {
    pub(super) fn open(path: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Self(Arc::new(Mutex::new(file.expect("the journal opens"))))
    }

    pub(super) fn begin(&self, path: &str) {
        self.write("begin", path);
    }

    pub(super) fn end(&self, path: &str) {
        self.write("end", path);
    }

    fn write(&self, event: &str, path: &str) {
        // One system call writes the line, so a kill does not split it.
        let line = format!("{} {event} {path}\n", process::id());
        let written = self.0.lock().write_all(line.as_bytes());
        written.expect("the journal is writable");
    }
}

/// The calls of one request.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// The processes that began a call, in order.
    pub(super) begun: Vec<u32>,
    /// The processes that completed a call, in order.
    pub(super) ended: Vec<u32>,
}

/// Reads the calls of each request, by its path.
pub(super) fn read(path: &Path) -> HashMap<String, Calls> {
    let text = fs::read_to_string(path).expect("the journal is readable");
    let mut calls = HashMap::<String, Calls>::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [process, event, path] = fields[..] else {
            panic!("a line of the journal is {line:?}");
        };
        let process = process.parse().expect("a process id");
        let calls = calls.entry(path.to_owned()).or_default();
        match event {
            "begin" => calls.begun.push(process),
            _ => calls.ended.push(process),
        }
    }
    calls
}
