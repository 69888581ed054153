//! Compares the log with what `strace` sees: the library must miss no call.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::{log::Call, recorder::Recorder};

/// The system calls that change or sync files.
const CALLS: &str = "trace=write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,splice,\
    truncate,ftruncate,fallocate,fsync,fdatasync,sync_file_range,msync,open,openat,openat2,creat,\
    mkdir,mkdirat,rmdir,unlink,unlinkat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,\
    io_uring_setup";

/// How often each call was made.
type Counts = BTreeMap<String, usize>;

/// The process may exit while its last call returns, which strace then shows differently.
#[test]
#[ignore = "compares once, in `./test --long`"]
fn library_records_what_strace_sees() {
    if !has_strace() {
        println!("SKIPPED: the log of power cuts is compared if `strace` can trace a process");
        return;
    }
    let Some(recorder) = Recorder::new() else {
        return;
    };
    let trace = recorder.path("trace");
    let trace_argument = trace.to_str().unwrap();
    let tracer = [
        "strace",
        "--follow-forks",
        "--seccomp-bpf",
        "-y",
        "-s0",
        "-e",
        CALLS,
        "-o",
        trace_argument,
    ];
    let recording = recorder.record(&tracer).expect("strace exists");
    let root = recorder.path("root");
    let traced = count(traced_calls(&fs::read_to_string(trace).unwrap(), &root));
    let recorded = count(recording.calls.iter().filter_map(recorded_call));
    let total: usize = recorded.values().sum();
    println!("{total} calls, as strace sees them");
    assert!(total > 1_000, "the workload has made {total} calls");
    if traced != recorded {
        let calls = traced.keys().chain(recorded.keys());
        let differs = |call: &&String| traced.get(*call) != recorded.get(*call);
        let first: Vec<&String> = calls.filter(differs).take(20).collect();
        panic!("strace and the log differ in {first:#?}");
    }
}

fn has_strace() -> bool {
    let mut probe = Command::new("strace");
    probe.args(["--seccomp-bpf", "-f", "-o", "/dev/null", "true"]);
    let probe = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
    probe.is_ok_and(|status| status.success())
}

fn count(calls: impl Iterator<Item = String>) -> Counts {
    let mut counts = Counts::new();
    for call in calls {
        *counts.entry(call).or_default() += 1;
    }
    counts
}

/// Describes a call as [`traced_call`] does. Whether an open creates a file is not in a trace.
fn recorded_call(call: &Call<'_>) -> Option<String> {
    match call {
        Call::Mark(_) => None,
        Call::Write { path, data, .. } => Some(format!("write {path} {}", data.len())),
        Call::OpenExisting { path } | Call::Create { path, .. } => Some(format!("open {path}")),
        Call::RemoveDirectory { path } => Some(format!("remove {path}")),
        other => Some(other.to_string()),
    }
}

/// Describes the calls of a trace that succeeded below a directory.
fn traced_calls(trace: &str, root: &Path) -> impl Iterator<Item = String> {
    let root = format!("{}/", root.to_str().unwrap());
    // By the number of the thread, the start of a call that another thread interrupts.
    let mut unfinished = HashMap::new();
    trace.lines().filter_map(move |line| {
        let (thread, call) = line.split_once(' ')?;
        let call = call.trim_start();
        if let Some(start) = call.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread.to_owned(), start.to_owned());
            return None;
        }
        match call.strip_prefix("<... ") {
            Some(end) => {
                let start = unfinished.remove(thread)?;
                let (_, end) = end.split_once(" resumed>")?;
                traced_call(&format!("{start}{end}"), &root)
            }
            None => traced_call(call, &root),
        }
    })
}

fn traced_call(call: &str, root: &str) -> Option<String> {
    let (name, rest) = call.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    if name == "io_uring_setup" {
        return Some(call.to_owned());
    }
    if result.starts_with('-') {
        return None;
    }
    // Each path of the call, of a descriptor or as a text, without the root.
    let mut paths = arguments
        .split(['<', '>', '"'])
        .filter_map(|part| part.strip_prefix(root))
        .filter(|path| !path.ends_with("-shm"));
    let bare_root = root.trim_end_matches('/');
    let path = match paths.next() {
        Some(path) => path,
        None if arguments.contains(&format!("<{bare_root}>")) => "",
        None => return None,
    };
    let last_number = || arguments.trim_end_matches([')', ' ']).rsplit(", ").next();
    let is_open = name.starts_with("open");
    Some(match name {
        _ if is_open && arguments.contains("O_CREAT") => format!("open {path}"),
        _ if is_open => return None,
        "write" | "writev" | "pwrite64" | "pwritev" => format!("write {path} {result}"),
        "ftruncate" => format!("resize {path} {}", last_number()?),
        "fsync" | "fdatasync" => format!("sync {path}"),
        "mkdir" | "mkdirat" => format!("make {path}"),
        "unlink" | "unlinkat" | "rmdir" => format!("remove {path}"),
        "rename" | "renameat" | "renameat2" => format!("rename {path} {}", paths.next()?),
        _ => format!("{name} {path}"),
    })
}
