//! Checks of stores whose jobs run in the process that accepted them.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time::sleep;

use super::{
    fixtures::{accept, claim_new, ended, look_up, record, unexpected_acceptance},
    violation::{CheckResult, ensure_eq},
};
use crate::{
    job::{ErrorCode, JobId, Status},
    store::{Acceptance, Lookup, NewJob, Store},
};

/// The time that a dropped `accept` may take to finish in the background.
const SETTLE_TIME: Duration = Duration::from_secs(1);

pub(super) async fn every_job_runs_here<S: Store>(store: S) -> CheckResult {
    match accept(&store, &NewJob::new(JobId::random())).await? {
        Acceptance::RunHere(_) => Ok(()),
        other => Err(unexpected_acceptance("RunHere", &other)),
    }
}

pub(super) async fn dropped_claim_ends_the_job<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    drop(claim);
    let job = ended(&store, id).await?;
    ensure_eq("status", job.status, Status::Failed)?;
    let reason = job.error.map(|failure| failure.code);
    ensure_eq("error code", reason, Some(ErrorCode::Shutdown))
}

pub(super) async fn dropped_accept_leaves_no_unfinished_job<S: Store>(store: S) -> CheckResult {
    let job = NewJob::new(JobId::random());
    {
        let mut accepting = pin!(store.accept(&job, record(&store)));
        // Polled once, so that it has begun.
        poll_fn(|cx| Poll::Ready(accepting.as_mut().poll(cx).is_ready())).await;
    }
    sleep(SETTLE_TIME).await;
    match look_up(&store, job.id).await? {
        Lookup::Found(_) => ended(&store, job.id).await.map(drop),
        Lookup::Gone(_) | Lookup::Unknown => Ok(()),
    }
}
