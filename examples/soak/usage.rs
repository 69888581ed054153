//! The memory, descriptors and tasks of the process.

use std::{fmt, fs};

use tokio::runtime::Handle;

/// The resources of the process at one time. `None` if the system does not report them.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    /// The resident memory, in KiB.
    rss: Option<u64>,
    /// The largest resident memory so far, in KiB.
    peak: Option<u64>,
    descriptors: Option<usize>,
    tasks: usize,
}

impl Usage {
    pub(crate) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let value = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Self {
            rss: value("VmRSS:"),
            peak: value("VmHWM:"),
            // Reading the folder takes one descriptor.
            descriptors: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|open| open.count() - 1),
            tasks: Handle::current().metrics().num_alive_tasks(),
        }
    }

    /// Returns `true` if no task and no descriptor is left over.
    pub(crate) fn is_restored_by(&self, after: &Self) -> bool {
        after.tasks <= self.tasks && after.descriptors <= self.descriptors
    }

    /// Writes the usage from this time to a later one.
    pub(crate) fn until(&self, after: &Self) -> String {
        format!(
            "RSS          start {}, peak {}, end {}\n\
             descriptors  start {}, end {}\n\
             tasks        start {}, end {}",
            mebibytes(self.rss),
            mebibytes(after.peak),
            mebibytes(after.rss),
            number(self.descriptors),
            number(after.descriptors),
            self.tasks,
            after.tasks,
        )
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let descriptors = number(self.descriptors);
        let (rss, tasks) = (mebibytes(self.rss), self.tasks);
        write!(f, "RSS {rss}, descriptors {descriptors}, tasks {tasks}")
    }
}

fn mebibytes(kibibytes: Option<u64>) -> String {
    kibibytes.map_or_else(unknown, |kibibytes| format!("{} MiB", kibibytes / 1024))
}

fn number(number: Option<usize>) -> String {
    number.map_or_else(unknown, |number| number.to_string())
}

fn unknown() -> String {
    "unknown".to_owned()
}
