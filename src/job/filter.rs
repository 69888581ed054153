//! A filter for lists of jobs, and a page of a list.

use super::{cursor::Cursor, owner::Owner, snapshot::Snapshot, state::Status};

/// The maximum number of jobs in a page.
const MAX_PAGE_JOBS: usize = 1_000;

/// The default number of jobs in a page.
const DEFAULT_PAGE_JOBS: usize = 100;

/// Selects the jobs that [`Jobs::list`](crate::Jobs::list) returns.
///
/// The default selects every job, a hundred a page.
///
/// ```
/// use tower_accepted::{Filter, Owner, Status};
///
/// let failed = Filter::new()
///     .owner(Owner::new("anna"))
///     .status(Status::Failed)
///     .limit(20);
/// # let _ = failed;
/// ```
#[derive(Debug, Clone)]
#[must_use = "a filter does nothing until it is given to `Jobs::list`"]
pub struct Filter {
    owner: Option<Owner>,
    status: Option<Status>,
    limit: usize,
    after: Option<Cursor>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            owner: None,
            status: None,
            limit: DEFAULT_PAGE_JOBS,
            after: None,
        }
    }
}

impl Filter {
    /// Creates a filter that selects every job.
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects jobs of this owner only. Default: jobs of all owners and of none.
    pub fn owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Selects jobs of this status only. Default: all.
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Sets the maximum number of jobs in a page, from 1 to 1,000. Default: 100.
    pub fn limit(mut self, jobs: usize) -> Self {
        self.limit = jobs.clamp(1, MAX_PAGE_JOBS);
        self
    }

    /// Continues after an earlier page: selects jobs older than this position only.
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Returns the owner whose jobs are selected, if there is one.
    pub fn get_owner(&self) -> Option<Owner> {
        self.owner
    }

    /// Returns the status of the jobs that are selected, if there is one.
    pub fn get_status(&self) -> Option<Status> {
        self.status
    }

    /// Returns the maximum number of jobs in a page.
    pub fn get_limit(&self) -> usize {
        self.limit
    }

    /// Returns the position that the page continues after, if there is one.
    pub fn get_after(&self) -> Option<Cursor> {
        self.after
    }

    /// Returns `true` if this selects the job, whichever page it is on.
    pub fn matches(&self, job: &Snapshot) -> bool {
        self.status.is_none_or(|status| job.status == status)
            && self.owner.is_none_or(|owner| job.owner == Some(owner))
    }

    /// Selects a page from all jobs, given in any order: the newest first.
    ///
    /// It reads every job, which suits a store with few jobs.
    pub fn page(&self, jobs: impl IntoIterator<Item = Snapshot>) -> Page {
        let mut selected: Vec<(Cursor, Snapshot)> = jobs
            .into_iter()
            .filter(|job| self.matches(job))
            .map(|job| (Cursor::from(&job), job))
            .filter(|(cursor, _)| self.after.is_none_or(|after| *cursor < after))
            .collect();
        selected.sort_by(|(one, _), (other, _)| other.cmp(one));
        let has_more = selected.len() > self.limit;
        selected.truncate(self.limit);
        let next = selected.last().filter(|_| has_more);
        Page {
            next: next.map(|(cursor, _)| *cursor),
            jobs: selected.into_iter().map(|(_, job)| job).collect(),
        }
    }
}

/// Some of the jobs that a [`Filter`] selects, the newest first.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Snapshot>,
    /// The position that the next page continues after, if there are more jobs.
    pub next: Option<Cursor>,
}

impl Page {
    /// Creates a page.
    pub fn new(jobs: Vec<Snapshot>, next: Option<Cursor>) -> Self {
        Self { jobs, next }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::job::JobId;

    #[test]
    fn pages_list_each_job_once_newest_first() {
        let now = std::time::SystemTime::now();
        let jobs = (0..5).map(|age| Snapshot::new(JobId::random(), now - Duration::from_secs(age)));
        let jobs: Vec<Snapshot> = jobs.collect();
        let expected: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        let mut filter = Filter::new().limit(2);
        let mut listed = Vec::new();
        loop {
            let page = filter.page(jobs.iter().rev().cloned());
            listed.extend(page.jobs.iter().map(|job| job.id));
            match page.next {
                Some(next) => filter = filter.after(next),
                None => break,
            }
        }
        assert_eq!(listed, expected);
    }
}
