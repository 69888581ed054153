use std::collections::BTreeMap;

use tokio::task::yield_now;

use super::{Shared, job::Birth};
use crate::job::{Cursor, Filter, Owner, Page, Snapshot};

/// How many of an owner's jobs are looked at before others are let run.
const AT_ONCE: usize = 256;

impl Shared {
    /// The jobs there are, the newest first.
    pub(super) async fn list(&self, filter: &Filter) -> Page {
        let mut jobs = match filter.owner {
            Some(owner) => self.list_owned(owner, filter).await,
            None => self.list_all(filter),
        };
        let more = jobs.len() > filter.limit;
        jobs.truncate(filter.limit);
        let next = jobs.last().filter(|_| more).map(|(cursor, _)| *cursor);
        let jobs = jobs.into_iter().map(|(_, job)| job).collect();
        Page { jobs, next }
    }

    /// One job more than the filter's limit, to tell whether there are more.
    async fn list_owned(&self, owner: Owner, filter: &Filter) -> Vec<(Cursor, Snapshot)> {
        let mut found = Vec::new();
        let mut before = filter.after;
        loop {
            let chunk: Vec<Cursor> = match (self.owned.get(&owner), before) {
                (None, _) => return found,
                (Some(owned), None) => owned.iter().rev().take(AT_ONCE).copied().collect(),
                (Some(owned), Some(before)) => {
                    let older = owned.range(..before).rev();
                    older.take(AT_ONCE).copied().collect()
                }
            };
            for &cursor in &chunk {
                let job = self.find(cursor.id);
                let job = job.map(|job| job.snapshot(&self.clock));
                if let Some(job) = job.filter(|job| filter.admits(job)) {
                    found.push((cursor, job));
                    if found.len() > filter.limit {
                        return found;
                    }
                }
            }
            if chunk.len() < AT_ONCE {
                return found;
            }
            before = chunk.last().copied();
            yield_now().await;
        }
    }

    /// The same over all jobs, which are in no order: while all are looked at, the newest so far are
    /// kept.
    fn list_all(&self, filter: &Filter) -> Vec<(Cursor, Snapshot)> {
        let mut newest = Newest {
            filter,
            jobs: BTreeMap::new(),
        };
        // One that ends meanwhile is seen here, or there, or both; it is listed as it was at one of these times.
        newest.see_unfinished(self);
        newest.see_ended(self);
        newest.jobs.into_iter().rev().collect()
    }
}

/// The newest jobs of those that have been seen, one more than the filter's limit.
struct Newest<'a> {
    filter: &'a Filter,
    jobs: BTreeMap<Cursor, Snapshot>,
}

impl Newest<'_> {
    fn see_unfinished(&mut self, store: &Shared) {
        for job in &store.unfinished {
            self.see(&job.birth, || job.snapshot(&store.clock));
        }
    }

    fn see_ended(&mut self, store: &Shared) {
        for entry in &store.ended {
            let job = entry.key();
            if !job.is_expired(&store.clock) {
                self.see(job.birth(), || job.snapshot(&store.clock));
            }
        }
    }

    fn see(&mut self, birth: &Birth, snapshot: impl FnOnce() -> Snapshot) {
        let cursor = birth.cursor();
        let is_behind = self.filter.after.is_none_or(|after| cursor < after);
        let is_full = self.jobs.len() > self.filter.limit;
        let oldest = self.jobs.first_key_value().map(|(&oldest, _)| oldest);
        if !is_behind || (is_full && oldest.is_some_and(|oldest| cursor < oldest)) {
            return;
        }
        let snapshot = snapshot();
        let is_new = self.filter.admits(&snapshot) && self.jobs.insert(cursor, snapshot).is_none();
        if is_new && is_full {
            self.jobs.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{
        job::{ErrorCode, JobId, Status},
        store::memory::job::Ending,
        store::{Acceptance, Budget, MemoryStore, NewJob},
    };

    #[test]
    fn a_job_that_ends_while_they_are_listed_does_not_hide_that_there_are_more() {
        let store = MemoryStore::new(Duration::from_secs(60), Budget::new(1 << 20));
        let shared = &store.shared;
        let accept = |second| {
            let mut new = NewJob::new(JobId::random());
            new.created_at = UNIX_EPOCH + Duration::from_secs(second);
            match shared.accept(&new) {
                Acceptance::RunHere(claim) => claim,
                _ => panic!("there is room"),
            }
        };
        let claims: Vec<_> = (1..=5).map(accept).collect();
        let filter = Filter::new().status(Status::Queued).limit(2);
        let mut newest = Newest {
            filter: &filter,
            jobs: BTreeMap::new(),
        };
        newest.see_unfinished(shared);
        shared.end(&claims[4].job, Ending::early(ErrorCode::Panic));
        newest.see_ended(shared);
        assert!(newest.jobs.len() > filter.limit, "{:?}", newest.jobs.len());
    }
}
