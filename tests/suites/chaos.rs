//! Parts of the chaos tests of all stores: processes to kill, the times of faults, and a diary.

use std::{
    env,
    fs::OpenOptions,
    ops::Range,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rand::{RngExt, rngs::StdRng};
use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep},
};

/// Reads a number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// A log of all faults with their times.
#[derive(Clone)]
pub(crate) struct Diary {
    entries: Arc<Mutex<Vec<String>>>,
    start: Instant,
}

impl Diary {
    pub(crate) fn new() -> Self {
        Self {
            entries: Arc::default(),
            start: Instant::now(),
        }
    }

    pub(crate) fn note(&self, event: String) {
        let at = self.elapsed().as_secs_f64();
        self.entries.lock().push(format!("{at:6.2} s  {event}"));
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn text(&self) -> String {
        self.entries.lock().join("\n")
    }
}

/// The times of faults: random, until all requests are sent.
pub(crate) struct FaultTimes {
    /// The pause before a fault, in milliseconds.
    pub(crate) pause: Range<u64>,
    /// The number of faults even if all requests are sent sooner.
    pub(crate) min_faults: usize,
    pub(crate) all_sent: watch::Receiver<bool>,
}

impl FaultTimes {
    /// Waits for the next fault. Returns `false` if no further one is due.
    pub(crate) async fn next(&mut self, random: &mut StdRng, faults: usize) -> bool {
        let pause = Duration::from_millis(random.random_range(self.pause.clone()));
        select! {
            () = sleep(pause) => true,
            _ = self.all_sent.wait_for(|sent| *sent), if faults >= self.min_faults => false,
        }
    }
}

/// A process that runs an ignored test of this binary, so that a test can kill it.
pub(crate) struct TestProcess {
    command: Command,
    process: Child,
    /// The ids of killed processes.
    pub(crate) killed: Vec<u32>,
}

impl TestProcess {
    /// Returns the command that runs the ignored test with this full name.
    ///
    /// It appends its standard error to `log`.
    pub(crate) fn command(test: &str, log: &Path) -> Command {
        let log = OpenOptions::new().create(true).append(true).open(log);
        let mut command = Command::new(env::current_exe().expect("the path of this test"));
        command
            .args(["--exact", test, "--ignored", "--nocapture"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the log opens"));
        command
    }

    pub(crate) fn start(mut command: Command) -> Self {
        let process = command.spawn().expect("the process starts");
        Self {
            command,
            process,
            killed: Vec::new(),
        }
    }

    pub(crate) fn restart(&mut self) {
        self.process = self.command.spawn().expect("the process starts");
    }

    /// Kills the process as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.killed.push(self.process.id());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Returns `true` if the process has ended by itself.
    #[allow(
        dead_code,
        reason = "workers of JetStream may exit at a start without a leader"
    )]
    pub(crate) fn has_exited(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(Some(_)))
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
