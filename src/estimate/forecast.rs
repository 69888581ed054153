//! The forecast for the next job of a kind.

use super::{
    change::{projected, recent},
    distribution::Distribution,
    elapsed::Elapsed,
    grid::Grid,
    history::History,
    poll_plan::{PollPlan, overdue_delay},
    progress::ProgressModel,
};

/// The forecast for the next job of a kind.
#[derive(Debug, Clone)]
pub(super) struct Forecast {
    /// From the call to its end; `None` with too few samples.
    run: Option<StageForecast>,
    /// From the request to the call; `None` if jobs hardly wait.
    queue: Option<StageForecast>,
    progress: ProgressModel,
    /// Set if reported progress predicts the end better than the run times of other jobs.
    trusts_progress: bool,
    poll_cost: f64,
}

/// The forecast for one stage of a job.
#[derive(Debug, Clone)]
struct StageForecast {
    plan: PollPlan,
    grid: Grid,
    /// The median of the remaining time at the beginning of each cell, in seconds.
    median_remaining: Box<[f32]>,
}

/// With fewer samples, a forecast is no better than backing off.
const MIN_SAMPLES: usize = 8;

impl Forecast {
    /// The forecast for a kind without samples.
    pub(super) fn unknown(poll_cost: f64) -> Self {
        Self {
            run: None,
            queue: None,
            progress: ProgressModel::new(&[]),
            trusts_progress: true,
            poll_cost,
        }
    }

    pub(super) fn new(history: &History, poll_cost: f64) -> Self {
        let ran = projected(history.ran());
        if ran.len() < MIN_SAMPLES {
            return Self::unknown(poll_cost);
        }
        let progress = ProgressModel::new(&recent(history.slowdowns()));
        let longest = ran[ran.len() - 1];
        let distribution = Distribution::from_sorted(&ran, Grid::covering(longest));
        let (plan, run_cost) = PollPlan::new(&distribution, poll_cost, |late| late);
        let queued = recent(history.queued());
        let longest_queued = queued.last().copied().unwrap_or_default();
        let queue = (longest_queued > distribution.grid().step()).then(|| {
            let grid = Grid::covering(longest_queued + longest);
            let lateness = distribution.expected_lateness();
            // After a poll finds that the call has started, either the job has ended since, or the
            // client goes on by the plan for the run.
            let found = |late: f64| {
                let run = distribution.grid();
                let edge = run.cell(late).unwrap_or(run.cells());
                let beyond = (late - run.horizon()).max(0.0);
                lateness[edge] + beyond + distribution.survival_at(late) * run_cost.at(late)
            };
            let queue = Distribution::from_sorted(&queued, grid);
            let (plan, _) = PollPlan::new(&queue, poll_cost, found);
            StageForecast {
                plan,
                grid,
                median_remaining: queue.median_remaining(),
            }
        });
        let quantile = |part: f64| ran[(part * ran.len() as f64) as usize];
        // Half the distance between the 16th and the 84th percentile: one standard deviation of a
        // normal distribution.
        let spread = (quantile(0.84) - quantile(0.16)) / 2.0;
        // At the midpoint, a prediction from progress is uncertain about half of the run time.
        let progress_spread = progress.spread() / 2.0 * quantile(0.5);
        Self {
            run: Some(StageForecast {
                plan,
                grid: distribution.grid(),
                median_remaining: distribution.median_remaining(),
            }),
            queue,
            trusts_progress: progress_spread < spread,
            progress,
            poll_cost,
        }
    }

    /// Returns the median of the remaining time in seconds.
    #[inline] // on the path of every request
    pub(super) fn remaining(&self, elapsed: Elapsed) -> Option<f64> {
        match elapsed {
            Elapsed::Queued { waited } => match &self.queue {
                None => self.run.as_ref()?.remaining(waited),
                Some(queue) => Some(queue.remaining(waited)? + self.run.as_ref()?.remaining(0.0)?),
            },
            Elapsed::Running { ran, progress, .. } => {
                let by_run = self.run.as_ref().and_then(|run| run.remaining(ran));
                let by_progress =
                    progress.and_then(|fraction| self.progress.median_remaining(fraction, ran));
                if self.trusts_progress {
                    by_progress.or(by_run)
                } else {
                    by_run.or(by_progress)
                }
            }
        }
    }

    /// Returns the best delay until the next poll in whole seconds, unless nothing is known.
    ///
    /// `expected_run` is the run time in seconds that the last estimate of the job implied.
    #[inline] // on the path of every answer
    pub(super) fn next_poll(&self, elapsed: Elapsed, expected_run: Option<f64>) -> Option<u64> {
        match elapsed {
            Elapsed::Queued { waited } => {
                let stage = self.queue.as_ref().or(self.run.as_ref())?;
                let planned = stage.plan.next_poll(waited);
                Some(planned.unwrap_or_else(|| overdue_delay(waited, self.poll_cost)))
            }
            Elapsed::Running { ran, progress, .. } => {
                let by_run = self.run.as_ref().and_then(|run| run.plan.next_poll(ran));
                let by_progress = progress.zip(expected_run).and_then(|(fraction, expected)| {
                    self.progress
                        .next_poll(fraction, expected, ran, self.poll_cost)
                });
                let planned = if self.trusts_progress {
                    by_progress.or(by_run)
                } else {
                    by_run.or(by_progress)
                };
                let overdue = || {
                    let run = self.run.as_ref();
                    run.map(|_| overdue_delay(ran, self.poll_cost))
                };
                planned.or_else(overdue)
            }
        }
    }
}

impl StageForecast {
    fn remaining(&self, age: f64) -> Option<f64> {
        let cell = self.grid.cell(age)?;
        Some(self.median_remaining[cell].into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{
        super::{progress::MidpointSample, sample::Sample},
        *,
    };

    #[test]
    fn polls_of_instant_calls_follow_their_queue() {
        for count in [8, 10, 16, 100, 128] {
            let mut history = History::default();
            for job in 1..=count {
                // Shuffled, since sorted durations would be a trend.
                let queued = Duration::from_secs(10) * (job * 37 % count) / count;
                let sample = Sample::new(
                    job,
                    SystemTime::now(),
                    queued,
                    Duration::ZERO,
                    &MidpointSample::default(),
                );
                history.insert(sample, sample.ended_at);
            }
            let forecast = Forecast::new(&history, 1.0);
            let delay = forecast.next_poll(Elapsed::Queued { waited: 0.0 }, None);
            assert!(delay.is_some_and(|delay| delay <= 6), "{count}: {delay:?}");
        }
    }
}
