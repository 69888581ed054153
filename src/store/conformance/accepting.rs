//! Checks of accepted jobs.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{
    fixtures::{accept, cancel, claim, ensure_unknown, forget, found, look_up, read},
    violation::{CheckResult, ensure, ensure_eq, ensure_same_millisecond},
};
use crate::{
    estimate::Kind,
    job::{CallbackTarget, JobId, Owner, Status},
    store::{Acceptance, NewJob, Store},
};

pub(super) async fn accepted_job_is_found_at_once<S: Store>(store: S) -> CheckResult {
    for run_here in [true, false] {
        let mut job = NewJob::new(JobId::random());
        job.run_here = run_here;
        let accepted = accept(&store, &job).await?;
        let is_created = matches!(accepted, Acceptance::RunHere(_) | Acceptance::Queued);
        ensure(is_created, "the job to be created")?;
        let snapshot = found(&store, job.id).await?;
        ensure_eq("id", snapshot.id, job.id)?;
        ensure_eq("status", snapshot.status, Status::Queued)?;
        // A claim may end its job when it is dropped.
        drop(accepted);
    }
    Ok(())
}

pub(super) async fn snapshot_has_what_the_job_had<S: Store>(store: S) -> CheckResult {
    let mut job = NewJob::new(JobId::random());
    job.created_at -= Duration::from_secs(5);
    job.owner = Some(Owner::new("me"));
    job.kind = Kind::new("POST /reports");
    job.title = Some("Jahresabschluß 2026".into());
    let target = CallbackTarget::new("https://example.com/hook", ["job.succeeded".to_owned()]);
    job.callbacks = Some([target].into());
    let estimate = SystemTime::now() + Duration::from_secs(30);
    job.estimated_finish = Some(estimate);
    let _claim = claim(&store, job.clone()).await?;

    let snapshot = found(&store, job.id).await?;
    ensure_eq("owner", snapshot.owner, job.owner)?;
    ensure_eq("kind", snapshot.kind.as_ref(), Some(&job.kind))?;
    ensure_eq("title", snapshot.title, job.title)?;
    ensure_eq("callbacks", snapshot.callbacks, job.callbacks)?;
    ensure_same_millisecond("created_at", Some(snapshot.created_at), job.created_at)?;
    let estimated = snapshot.estimated_finish_at;
    ensure_same_millisecond("estimated_finish_at", estimated, estimate)?;
    ensure_eq("started_at", snapshot.started_at, None)?;
    ensure_eq("finished_at", snapshot.finished_at, None)?;
    ensure(snapshot.response.is_none(), "no response before the end")?;
    ensure_eq("error", snapshot.error, None)
}

pub(super) async fn job_that_runs_already_is_running<S: Store>(store: S) -> CheckResult {
    let mut job = NewJob::new(JobId::random());
    job.created = Instant::now();
    job.started = Some(job.created + Duration::from_millis(20));
    job.progress.fraction = Some(0.5);
    let _claim = claim(&store, job.clone()).await?;
    let snapshot = found(&store, job.id).await?;
    ensure_eq("status", snapshot.status, Status::Running)?;
    ensure_eq("attempt", snapshot.attempt, 1)?;
    ensure_eq("progress", snapshot.progress, job.progress)?;
    let started = job.created_at + Duration::from_millis(20);
    ensure_same_millisecond("started_at", snapshot.started_at, started)
}

pub(super) async fn unknown_job_is_unknown<S: Store>(store: S) -> CheckResult {
    let id = JobId::random();
    ensure_unknown(&look_up(&store, id).await?)?;
    ensure_unknown(&cancel(&store, id).await?)?;
    ensure_unknown(&forget(&store, id).await?)?;
    let result = read(&store, id, 0).await?;
    ensure(result.is_none(), "no result of an unknown job")
}
