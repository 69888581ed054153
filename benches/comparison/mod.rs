//! Compares two ways to do the same work, which take turns.

use std::{fmt, time::Duration};

use criterion::{Criterion, SamplingMode};
use tokio::runtime::Runtime;

use crate::subjects::BATCH;

/// The number of a benchmark's last samples that count. Earlier ones are criterion's warm-up.
const SAMPLES: usize = 40;

/// Runs pairs of benchmarks under criterion and prints their ratios.
///
/// A machine's noise lasts longer than a batch of calls. So the two sides take turns, batch by
/// batch, and each sample has a ratio of its own. Criterion itself reports only the first side.
pub(crate) struct Comparison {
    criterion: Criterion,
    runtime: Runtime,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    baseline: &'static str,
    /// For each sample, the time of one call in nanoseconds: ours and theirs.
    samples: Vec<(f64, f64)>,
}

impl Comparison {
    /// Creates a comparison on a runtime of one thread, with criterion's command line.
    pub(crate) fn from_args() -> Self {
        let criterion = Criterion::default()
            .warm_up_time(Duration::from_secs(1))
            .measurement_time(Duration::from_secs(4))
            .sample_size(SAMPLES)
            .configure_from_args();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Self {
            criterion,
            runtime: runtime.expect("a runtime"),
            rows: Vec::new(),
        }
    }

    /// Returns the runtime of both sides, for their set-up.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Compares two sides. Each takes a number of calls to make and returns how long they took.
    pub(crate) fn row(
        &mut self,
        name: &str,
        mut ours: impl AsyncFnMut(usize) -> Duration,
        baseline: &'static str,
        mut theirs: impl AsyncFnMut(usize) -> Duration,
    ) {
        let (runtime, mut samples) = (&self.runtime, Vec::new());
        let mut group = self.criterion.benchmark_group(name);
        // Samples of one size, so that all have the same weight.
        group.sampling_mode(SamplingMode::Flat);
        group.bench_function("layer", |bencher| {
            bencher.iter_custom(|calls| {
                runtime.block_on(async {
                    let (mut first, mut second) = (Duration::ZERO, Duration::ZERO);
                    let mut left = calls as usize;
                    while left > 0 {
                        let batch = left.min(BATCH);
                        first += ours(batch).await;
                        second += theirs(batch).await;
                        left -= batch;
                    }
                    let nanoseconds = |time: Duration| time.as_secs_f64() * 1e9 / calls as f64;
                    samples.push((nanoseconds(first), nanoseconds(second)));
                    first
                })
            });
        });
        group.finish();
        if !samples.is_empty() {
            self.rows.push(Row {
                name: name.to_owned(),
                baseline,
                samples: samples.split_off(samples.len().saturating_sub(SAMPLES)),
            });
        }
    }

    /// Prints the table of all rows.
    pub(crate) fn finish(self) {
        self.criterion.final_summary();
        println!("\n| | compared with | ratio | adds |");
        println!("|---|---|---|---|");
        for row in &self.rows {
            println!("{row}");
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, baseline, .. } = self;
        let ratio = Spread::new(self.samples.iter().map(|(ours, theirs)| ours / theirs));
        let adds = Spread::new(self.samples.iter().map(|(ours, theirs)| ours - theirs));
        write!(f, "| {name} | {baseline} | {ratio:.2} | {adds:.0} ns |")
    }
}

/// The median, and the range of nine values in ten.
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

impl Spread {
    fn new(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        Self {
            low: at(0.05),
            median: at(0.5),
            high: at(0.95),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.median, f)?;
        f.write_str(" (")?;
        fmt::Display::fmt(&self.low, f)?;
        f.write_str(" to ")?;
        fmt::Display::fmt(&self.high, f)?;
        f.write_str(")")
    }
}
