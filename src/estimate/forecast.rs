//! What the past of a kind says of its next job.

use super::{
    change::{projected, recent},
    distribution::Distribution,
    grid::Grid,
    pace::Pace,
    past::Past,
    plan::{Plan, overdue},
};

/// What a job has come to, with times in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Standing {
    /// It has waited for so long.
    Queued(f64),
    /// It has run for so long, and is so far.
    Running(f64, Option<f64>),
}

/// What is to be expected of a kind's jobs.
#[derive(Debug, Clone)]
pub(super) struct Forecast {
    /// From the call to its end; where enough jobs were seen.
    run: Option<Outlook>,
    /// From the request to the call; where any have waited to speak of.
    queue: Option<Outlook>,
    pace: Pace,
    /// Whether progress tells more than how long other jobs took.
    trusts_progress: bool,
    poll_cost: f64,
}

/// What is to be expected of one stretch of a job.
#[derive(Debug, Clone)]
struct Outlook {
    plan: Plan,
    grid: Grid,
    /// How much is left at the beginning of each cell, in seconds, half the time.
    left: Box<[f32]>,
}

/// How many jobs are to be seen before anything is told from them: with fewer, backing off does as well.
const FEW: usize = 8;

impl Forecast {
    /// What is to be expected where nothing is known.
    pub(super) fn unknown(poll_cost: f64) -> Self {
        Self {
            run: None,
            queue: None,
            pace: Pace::of(&[]),
            trusts_progress: true,
            poll_cost,
        }
    }

    /// What is to be expected after such a past.
    pub(super) fn of(past: &Past, poll_cost: f64) -> Self {
        let ran = projected(past.ran());
        if ran.len() < FEW {
            return Self::unknown(poll_cost);
        }
        let pace = Pace::of(&recent(past.multiples()));
        let longest = ran[ran.len() - 1];
        let distribution = Distribution::of(&ran, Grid::beyond(longest));
        let (plan, ahead) = Plan::new(&distribution, poll_cost, |since| since);
        let queued = recent(past.queued());
        let longest_queued = queued.last().copied().unwrap_or_default();
        let queue = (longest_queued > distribution.grid().step()).then(|| {
            let grid = Grid::beyond(longest_queued + longest);
            let late = distribution.late();
            // A job that is found to have begun has ended since, or is asked for again.
            let found = |since: f64| {
                let run = distribution.grid();
                let edge = run.cell(since).unwrap_or(run.cells());
                let beyond = (since - run.horizon()).max(0.0);
                late[edge] + beyond + distribution.left_at(since) * ahead.at(since)
            };
            let queue = Distribution::of(&queued, grid);
            let (plan, _) = Plan::new(&queue, poll_cost, found);
            Outlook {
                plan,
                grid,
                left: queue.median_left(),
            }
        });
        let at = |part: f64| ran[(part * ran.len() as f64) as usize];
        let spread = (at(0.84) - at(0.16)) / 2.0;
        Self {
            run: Some(Outlook {
                plan,
                grid: distribution.grid(),
                left: distribution.median_left(),
            }),
            queue,
            // Half done, half of the time is left to be wrong about.
            trusts_progress: pace.spread() / 2.0 * at(0.5) < spread,
            pace,
            poll_cost,
        }
    }

    /// How many seconds are left: half the time it is more.
    #[inline] // it is asked for with every request
    pub(super) fn left(&self, standing: Standing) -> Option<f64> {
        match standing {
            Standing::Queued(waited) => match &self.queue {
                None => self.run.as_ref()?.left(waited),
                Some(queue) => Some(queue.left(waited)? + self.run.as_ref()?.left(0.0)?),
            },
            Standing::Running(ran, fraction) => {
                let known = self.run.as_ref().and_then(|run| run.left(ran));
                let by_pace = fraction.and_then(|fraction| self.pace.median_left(fraction, ran));
                match self.trusts_progress {
                    true => by_pace.or(known),
                    false => known.or(by_pace),
                }
            }
        }
    }

    /// After how many whole seconds it is best to ask again, where anything is known; `whole` is how many
    /// seconds the job was last estimated to run.
    #[inline] // it is asked for with every answer
    pub(super) fn next(&self, standing: Standing, whole: Option<f64>) -> Option<u64> {
        match standing {
            Standing::Queued(waited) => {
                let known = self.queue.as_ref().or(self.run.as_ref())?;
                let planned = known.plan.next(waited);
                Some(planned.unwrap_or_else(|| overdue(waited, self.poll_cost)))
            }
            Standing::Running(ran, fraction) => {
                let known = self.run.as_ref().and_then(|run| run.plan.next(ran));
                let by_pace = fraction.zip(whole).and_then(|(fraction, whole)| {
                    self.pace.next(fraction, whole, ran, self.poll_cost)
                });
                let overdue = || self.run.as_ref().map(|_| overdue(ran, self.poll_cost));
                match self.trusts_progress {
                    true => by_pace.or(known).or_else(overdue),
                    false => known.or(by_pace).or_else(overdue),
                }
            }
        }
    }
}

impl Outlook {
    fn left(&self, age: f64) -> Option<f64> {
        self.grid.cell(age).map(|cell| self.left[cell].into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{
        super::{pace::Halfway, past::Seen},
        *,
    };

    #[test]
    fn calls_that_take_no_time_are_asked_for_as_their_queue_moves() {
        for count in [8, 10, 16, 100, 128] {
            let mut past = Past::default();
            for n in 1..=count {
                // Out of order, or it would be a trend.
                let queued = Duration::from_secs(10) * (n * 37 % count) / count;
                let seen = Seen::new(
                    SystemTime::now(),
                    queued,
                    Duration::ZERO,
                    &Halfway::default(),
                );
                past.insert(seen, seen.at());
            }
            let forecast = Forecast::of(&past, 1.0);
            let next = forecast.next(Standing::Queued(0.0), None);
            assert!(next.is_some_and(|next| next <= 6), "{count}: {next:?}");
        }
    }
}
