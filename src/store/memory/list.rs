//! Lists the jobs in memory.

use std::collections::BTreeMap;

use tokio::task::yield_now;

use super::{creation::Creation, table::JobTable};
use crate::job::{Cursor, Filter, Owner, Page, Snapshot};

/// The number of an owner's jobs that are read before the task yields.
const BATCH_JOBS: usize = 256;

impl JobTable {
    /// Lists jobs, the newest first.
    pub(super) async fn list(&self, filter: &Filter) -> Page {
        let mut jobs = match filter.get_owner() {
            Some(owner) => self.list_owned(owner, filter).await,
            None => self.list_all(filter),
        };
        let has_more = jobs.len() > filter.get_limit();
        jobs.truncate(filter.get_limit());
        let next = jobs.last().filter(|_| has_more).map(|(cursor, _)| *cursor);
        Page::new(jobs.into_iter().map(|(_, job)| job).collect(), next)
    }

    /// Returns one job more than the filter's limit, which shows whether there are more.
    async fn list_owned(&self, owner: Owner, filter: &Filter) -> Vec<(Cursor, Snapshot)> {
        let mut found = Vec::new();
        let mut before = filter.get_after();
        loop {
            let batch = self.owned(owner, before, BATCH_JOBS);
            for &cursor in &batch {
                let job = self.find(cursor.id());
                let job = job.and_then(|job| self.snapshot(&job, self.clock().now()));
                if let Some(job) = job.filter(|job| filter.matches(job)) {
                    found.push((cursor, job));
                    if found.len() > filter.get_limit() {
                        return found;
                    }
                }
            }
            if batch.len() < BATCH_JOBS {
                return found;
            }
            before = batch.last().copied();
            yield_now().await;
        }
    }

    /// Does the same for all jobs, which are in no order: it reads every job, and keeps the newest.
    fn list_all(&self, filter: &Filter) -> Vec<(Cursor, Snapshot)> {
        let mut newest = NewestJobs::new(filter);
        // A job that ends meanwhile is seen in one map or in both, and is listed as it was then.
        newest.add_unfinished(self);
        newest.add_ended(self);
        newest.jobs.into_iter().rev().collect()
    }
}

/// The newest of the jobs that were added, one more than the filter's limit.
struct NewestJobs<'a> {
    filter: &'a Filter,
    jobs: BTreeMap<Cursor, Snapshot>,
}

impl<'a> NewestJobs<'a> {
    fn new(filter: &'a Filter) -> Self {
        let jobs = BTreeMap::new();
        Self { filter, jobs }
    }

    fn add_unfinished(&mut self, table: &JobTable) {
        table.for_each_unfinished(|job| {
            self.add(&job.creation, || job.snapshot(table.clock().now()));
        });
    }

    fn add_ended(&mut self, table: &JobTable) {
        table.for_each_ended(|job| {
            self.add(&job.creation(), || {
                Some(job.snapshot(table.clock(), table.clock().now()))
            });
        });
    }

    /// Adds a job, unless `snapshot` finds that it has ended: then it is added as an ended one.
    fn add(&mut self, creation: &Creation, snapshot: impl FnOnce() -> Option<Snapshot>) {
        let cursor = creation.cursor();
        let is_selected = self.filter.get_after().is_none_or(|after| cursor < after);
        let is_full = self.jobs.len() > self.filter.get_limit();
        let oldest = self.jobs.first_key_value().map(|(&oldest, _)| oldest);
        if !is_selected || (is_full && oldest.is_some_and(|oldest| cursor < oldest)) {
            return;
        }
        let Some(job) = snapshot() else {
            return;
        };
        let is_new = self.filter.matches(&job) && self.jobs.insert(cursor, job).is_none();
        if is_new && is_full {
            self.jobs.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{super::table::Inserted, *};
    use crate::{
        job::{ErrorCode, JobId, Status},
        limit::Budget,
        store::{NewJob, memory::unfinished::Ending},
    };

    #[test]
    fn job_that_ends_during_a_list_hides_no_next_page() {
        let table = JobTable::new(Duration::from_secs(60), Budget::new(1 << 20));
        let accept = |second| {
            let mut new = NewJob::new(JobId::random());
            new.created_at = UNIX_EPOCH + Duration::from_secs(second);
            match table.accept(&new) {
                Inserted::New(job, _) => job,
                _ => panic!("there is room"),
            }
        };
        let jobs: Vec<_> = (1..=5).map(accept).collect();
        let filter = Filter::new().status(Status::Queued).limit(2);
        let mut newest = NewestJobs::new(&filter);
        newest.add_unfinished(&table);
        table.end(&jobs[4], Ending::without_response(ErrorCode::Panic));
        newest.add_ended(&table);
        assert!(
            newest.jobs.len() > filter.get_limit(),
            "{:?}",
            newest.jobs.len()
        );
    }
}
