//! Sends requests, and sums up how long they took.

use std::{
    cell::Cell,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use hdrhistogram::Histogram;
use tempfile::TempDir;
use tower_accepted::{
    Jobs,
    store::{
        Store,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

/// The body of every request, in bytes.
pub(crate) const BODY_BYTES: usize = 1_024;

/// The numbers of requests in flight.
pub(crate) const IN_FLIGHT: [usize; 3] = [1, 32, 256];

/// The time over which a row is measured.
const MEASURED: Duration = Duration::from_secs(3);

/// The time before that, which does not count.
const WARM_UP: Duration = Duration::from_secs(1);

/// A directory of the build's target directory, which is on a disk.
pub(crate) struct Scratch {
    directory: TempDir,
    next: Cell<u32>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR"));
        Self {
            directory: directory.expect("a directory"),
            next: Cell::new(0),
        }
    }

    /// Returns the path of a new file.
    pub(crate) fn file(&self) -> PathBuf {
        let number = self.next.get();
        self.next.set(number + 1);
        self.directory.path().join(format!("{number}.db"))
    }
}

/// Opens a file without limits.
pub(crate) async fn store(path: PathBuf) -> SqliteStore {
    let options = SqliteOptions::new().max_queued(None).max_keys(None);
    SqliteStore::open(path, options).await.expect("a file")
}

/// Returns a registry whose limits no benchmark reaches.
pub(crate) fn jobs<S: Store>(store: S) -> Jobs<S> {
    let jobs = Jobs::builder().max_unfinished(10_000_000);
    jobs.max_bytes(8 << 30).store(store).build()
}

/// The durations of requests.
pub(crate) struct Times {
    histogram: Histogram<u64>,
    elapsed: Duration,
}

impl Times {
    pub(crate) fn per_second(&self) -> f64 {
        self.histogram.len() as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn millis(&self, quantile: f64) -> f64 {
        self.histogram.value_at_quantile(quantile) as f64 / 1e6
    }

    /// Returns the cells `per second | p50 | p99 | p99.9`.
    pub(crate) fn cells(&self) -> String {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| self.millis(quantile));
        format!("{:.0} | {p50:.2} | {p99:.2} | {p999:.2}", self.per_second())
    }
}

/// Sends requests for `limit`, this many at a time.
pub(crate) async fn measure<F>(in_flight: usize, limit: Duration, send: impl Fn() -> F) -> Times
where
    F: Future<Output = ()>,
{
    let begun = Instant::now();
    let senders = (0..in_flight).map(async |_| {
        let mut times = Histogram::<u64>::new(3).expect("three digits");
        while begun.elapsed() < limit {
            let sent = Instant::now();
            send().await;
            times
                .record(sent.elapsed().as_nanos() as u64)
                .expect("in range");
        }
        times
    });
    let all = join_all(senders).await;
    let elapsed = begun.elapsed();
    let mut histogram = Histogram::new(3).expect("three digits");
    all.iter()
        .for_each(|times| histogram.add(times).expect("in range"));
    Times { histogram, elapsed }
}

/// Measures after a warm-up.
pub(crate) async fn measure_warm<F>(in_flight: usize, send: impl Fn() -> F) -> Times
where
    F: Future<Output = ()>,
{
    measure(in_flight, WARM_UP, &send).await;
    measure(in_flight, MEASURED, &send).await
}
