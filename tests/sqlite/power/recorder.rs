//! Compiles the library, and runs the workload under it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

use super::{
    history::History,
    log::{Call, parse},
    workload::{MARKS, ROOT, WORKLOAD_TEST},
};

/// The environment variable that names the log.
const LOG: &str = "POWER_LOG";

/// The source of the library.
const LIBRARY: &str = include_str!("interpose.c");

/// What the workload did.
pub(super) struct Recording {
    pub(super) calls: Vec<Call<'static>>,
    pub(super) history: History,
}

/// Records the workload once for all tests. Returns `None`, and prints why, if it cannot.
pub(super) fn recording() -> Option<&'static Recording> {
    static RECORDING: OnceLock<Option<Recording>> = OnceLock::new();
    RECORDING
        .get_or_init(|| Recorder::new()?.record(&[]))
        .as_ref()
}

/// A directory for a run of the workload.
pub(super) struct Recorder {
    directory: TempDir,
}

impl Recorder {
    /// Compiles the library. Returns `None`, and prints why, if this platform cannot.
    pub(super) fn new() -> Option<Self> {
        let is_supported = cfg!(all(
            target_os = "linux",
            target_env = "gnu",
            target_pointer_width = "64"
        ));
        if !is_supported {
            println!("SKIPPED: power cuts are simulated on 64-bit Linux with glibc only");
            return None;
        }
        let recorder = Self {
            directory: fast_directory(),
        };
        let source = recorder.path("interpose.c");
        fs::write(&source, LIBRARY).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args([
            "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-pthread", "-o",
        ]);
        compiler.arg(recorder.path("interpose.so")).arg(source);
        let Some(compiled) = output_of(&mut compiler) else {
            println!("SKIPPED: power cuts are simulated if there is a C compiler, `cc`");
            return None;
        };
        let errors = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{errors}");
        Some(recorder)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the workload, under another program if `tracer` has one.
    pub(super) fn record(&self, tracer: &[&str]) -> Option<Recording> {
        let root = self.path("root");
        fs::create_dir(&root).unwrap();
        for file in ["log", "marks"] {
            fs::write(self.path(file), "").unwrap();
        }
        let this_binary = env::current_exe().unwrap();
        let library = self.path("interpose.so");
        let mut command = match tracer {
            [] => Command::new(&this_binary),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                // Only what it runs is recorded.
                command.arg(format!("--env=LD_PRELOAD={}", library.display()));
                command.args(arguments).arg(&this_binary);
                command
            }
        };
        if tracer.is_empty() {
            command.env("LD_PRELOAD", library);
        }
        command
            .args(["--exact", WORKLOAD_TEST, "--ignored", "--nocapture"])
            .env(ROOT, &root)
            .env(MARKS, self.path("marks"))
            .env(LOG, self.path("log"));
        let output = output_of(&mut command)?;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "the workload failed: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        // It lives as long as the tests.
        let log = fs::read(self.path("log")).unwrap().leak();
        let calls = parse(log, &root);
        let history = History::read(&calls);
        Some(Recording { calls, history })
    }
}

/// Runs a program. Returns `None` if it does not exist.
fn output_of(command: &mut Command) -> Option<Output> {
    command.stdin(Stdio::null()).output().ok()
}

/// Returns a directory in memory, if there is such a file system.
pub(super) fn fast_directory() -> TempDir {
    let in_memory = Path::new("/dev/shm");
    let directory = match fs::metadata(in_memory) {
        Ok(_) => TempDir::new_in(in_memory),
        Err(_) => TempDir::new(),
    };
    directory
        .or_else(|_| TempDir::new())
        .expect("a temporary directory")
}
