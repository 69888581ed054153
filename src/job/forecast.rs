//! Forecasts for a snapshot, and samples from it.

use std::time::{Duration, SystemTime};

use super::{snapshot::Snapshot, state::Status};
use crate::estimate::{Elapsed, Estimates, MidpointSample, Sample};

impl Snapshot {
    /// Returns the `Retry-After` of an unfinished job, in whole seconds.
    pub(crate) fn retry_after(&self, estimates: &Estimates) -> u64 {
        let waited = self.started_at.map(|at| self.since_created(at));
        let elapsed = Elapsed::new(self.age, waited, self.progress.fraction);
        let expected_run = self.estimated_finish_at.zip(waited).map(|(at, waited)| {
            let total = self.since_created(at);
            total.as_secs_f64() - waited.as_secs_f64()
        });
        estimates.next_poll(self.kind.as_ref(), elapsed, expected_run)
    }

    /// Lets the estimates learn from a snapshot that was read from the store. A job that has not
    /// succeeded teaches nothing; a job that the estimates have seen counts once.
    ///
    /// The jobs of a store in memory have no kind once they ended: their process ran them, and has
    /// learned from them.
    pub(crate) fn teach(&self, estimates: &Estimates) {
        let Some(kind) = self
            .kind
            .as_ref()
            .filter(|_| self.status == Status::Succeeded)
        else {
            return;
        };
        let (Some(started), Some(finished)) = (self.started_at, self.finished_at) else {
            return;
        };
        let sample = Sample::new(
            self.id.low_bits(),
            finished,
            self.since_created(started),
            finished.duration_since(started).unwrap_or_default(),
            // A record does not say when progress was reported.
            &MidpointSample::default(),
        );
        estimates.learn(kind, sample, SystemTime::now());
    }

    fn since_created(&self, at: SystemTime) -> Duration {
        at.duration_since(self.created_at).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{estimate::Kind, job::JobId, store::NewJob};

    const RUN: Duration = Duration::from_secs(20);

    fn ended(status: Status) -> Snapshot {
        let created_at = SystemTime::now() - RUN;
        Snapshot {
            status,
            created_at,
            started_at: Some(created_at),
            finished_at: Some(created_at + RUN),
            kind: Some(Kind::new("POST /reports")),
            ..NewJob::new(JobId::random()).snapshot()
        }
    }

    /// Teaches the estimates and returns the `Retry-After` of the next job.
    fn retry_after(jobs: &[Snapshot]) -> u64 {
        let estimates = Estimates::new(Duration::from_secs(1));
        jobs.iter().for_each(|job| job.teach(&estimates));
        let next = Snapshot {
            kind: Some(Kind::new("POST /reports")),
            ..NewJob::new(JobId::random()).snapshot()
        };
        next.retry_after(&estimates)
    }

    #[test]
    fn jobs_from_the_store_are_learned() {
        let jobs: Vec<_> = (0..8).map(|_| ended(Status::Succeeded)).collect();
        assert!((20..=21).contains(&retry_after(&jobs)));
    }

    #[test]
    fn job_that_is_read_twice_teaches_once() {
        let job = ended(Status::Succeeded);
        let jobs: Vec<_> = (0..8).map(|_| job.clone()).collect();
        assert_eq!(retry_after(&jobs), 1);
    }

    #[test]
    fn failed_jobs_teach_nothing() {
        for status in [Status::Failed, Status::Canceled, Status::Running] {
            let jobs: Vec<_> = (0..8).map(|_| ended(status)).collect();
            assert_eq!(retry_after(&jobs), 1);
        }
    }
}
