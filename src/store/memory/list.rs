use std::collections::BTreeMap;

use tokio::task::yield_now;

use super::{Shared, job::Birth};
use crate::{
    job::Snapshot,
    list::{Cursor, Filter, Page},
    owner::Owner,
};

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
        // One that ends meanwhile is seen here, or there, or both: then as it has ended.
        for job in &self.unfinished {
            newest.see(&job.birth, || job.snapshot(&self.clock));
        }
        for entry in &self.ended {
            let job = entry.key();
            if !job.is_expired(&self.clock) {
                newest.see(job.birth(), || job.snapshot(&self.clock));
            }
        }
        newest.jobs.into_iter().rev().collect()
    }
}

/// The newest jobs of those that have been seen, one more than the filter's limit.
struct Newest<'a> {
    filter: &'a Filter,
    jobs: BTreeMap<Cursor, Snapshot>,
}

impl Newest<'_> {
    fn see(&mut self, birth: &Birth, snapshot: impl FnOnce() -> Snapshot) {
        let cursor = birth.cursor();
        let is_behind = self.filter.after.is_none_or(|after| cursor < after);
        let is_full = self.jobs.len() > self.filter.limit;
        let oldest = self.jobs.first_key_value().map(|(&oldest, _)| oldest);
        if !is_behind || (is_full && oldest.is_some_and(|oldest| cursor < oldest)) {
            return;
        }
        let snapshot = snapshot();
        if !self.filter.admits(&snapshot) {
            // As it was seen before, it may have been.
            self.jobs.remove(&cursor);
        } else if self.jobs.insert(cursor, snapshot).is_none() && is_full {
            self.jobs.pop_first();
        }
    }
}
