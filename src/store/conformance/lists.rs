//! Checks of lists of jobs.

use std::time::Duration;

use super::{
    fixtures::{accept, claim, finish_with},
    violation::{CheckResult, Violation, ensure_eq, within},
};
use crate::{
    job::{Cursor, Filter, JobId, Owner, Status},
    store::{NewJob, Store},
};

/// Returns a job that was created some milliseconds after others.
fn job_created_after(millis: u64) -> NewJob {
    let mut job = NewJob::new(JobId::random());
    job.created_at += Duration::from_millis(millis);
    job
}

async fn list<S: Store>(store: &S, filter: &Filter) -> CheckResult<(Vec<JobId>, Option<Cursor>)> {
    let page = within("a list", store.list(filter)).await??;
    Ok((page.jobs.iter().map(|job| job.id).collect(), page.next))
}

/// Lists all pages of three jobs each.
async fn list_pages<S: Store>(store: &S, filter: &Filter) -> CheckResult<Vec<JobId>> {
    let (mut listed, mut filter) = (Vec::new(), filter.clone().limit(3));
    for _ in 0..10 {
        let (jobs, next) = list(store, &filter).await?;
        listed.extend(jobs);
        match next {
            Some(next) => filter = filter.after(next),
            None => return Ok(listed),
        }
    }
    Err(Violation::new("expected the list to end"))
}

pub(super) async fn jobs_are_listed_by_owner_and_status<S: Store>(store: S) -> CheckResult {
    let (me, you) = (Owner::new("me"), Owner::new("you"));
    let mut mine = Vec::new();
    let mut claims = Vec::new();
    for index in 0..5 {
        let mut job = job_created_after(index);
        let owner = if index == 3 { you } else { me };
        job.owner = Some(owner);
        if owner == me {
            mine.insert(0, job.id);
        }
        let claim = claim(&store, job).await?;
        if index % 2 == 0 {
            finish_with(&store, &claim, "done").await?;
        }
        claims.push(claim);
    }
    let my_jobs = || Filter::new().owner(me);
    let (jobs, next) = list(&store, &my_jobs()).await?;
    ensure_eq("jobs of an owner", &jobs, &mine)?;
    ensure_eq("next page", next, None)?;
    let jobs = list_pages(&store, &my_jobs()).await?;
    ensure_eq("pages of an owner", &jobs, &mine)?;
    let (jobs, _) = list(&store, &my_jobs().status(Status::Succeeded)).await?;
    let succeeded = vec![mine[0], mine[1], mine[3]];
    ensure_eq("succeeded jobs of an owner", jobs, succeeded)?;
    let (jobs, _) = list(&store, &my_jobs().status(Status::Queued)).await?;
    ensure_eq("queued jobs of an owner", jobs, vec![mine[2]])?;
    let (jobs, _) = list(&store, &Filter::new().owner(Owner::new("nobody"))).await?;
    ensure_eq("jobs of an owner without jobs", jobs, Vec::new())
}

pub(super) async fn pages_list_each_job_once<S: Store>(store: S) -> CheckResult {
    let mut created = Vec::new();
    let mut accepted = Vec::new();
    for index in 0..7 {
        // Two of them in one millisecond.
        let mut job = job_created_after(index / 2);
        job.run_here = index % 3 == 0;
        accepted.push(accept(&store, &job).await?);
        created.push(Cursor::new(job.created_at, job.id));
    }
    created.sort_by(|one, other| other.cmp(one));
    let newest: Vec<_> = created.iter().map(Cursor::id).collect();
    let listed = list_pages(&store, &Filter::new()).await?;
    ensure_eq("all pages", listed, newest)
}
