//! Checks of idempotency keys.

use http::Method;
use tokio::join;

use super::{
    fixtures::{
        accept, cancel, claim, finish, finish_with, forget, request_head, response_head,
        unexpected_acceptance,
    },
    violation::{CheckResult, Violation, ensure, ensure_eq, within},
};
use crate::{
    job::{Fingerprint, JobId, Key, Snapshot, Status},
    store::{Acceptance, End, Finished, KeyOutcome, NewJob, NewKey, Outcome, Store},
};

/// A new job of the one key of these checks. Requests with different bodies have other
/// fingerprints.
pub(super) fn keyed(body: &[u8]) -> NewJob {
    let mut job = NewJob::new(JobId::random());
    let fingerprint = Fingerprint::new(&request_head(Method::POST), body, &[]);
    job.key = Some(NewKey::new(Key::new(b"once", None), fingerprint));
    job.run_here = true;
    job
}

async fn joined<S: Store>(store: &S) -> CheckResult<Snapshot> {
    match accept(store, &keyed(b"a request")).await? {
        Acceptance::Joined(job) => Ok(*job),
        other => Err(unexpected_acceptance("Joined", &other)),
    }
}

pub(super) async fn repeated_key_joins_the_job<S: Store>(store: S) -> CheckResult {
    let first = keyed(b"a request");
    let id = first.id;
    let claim = claim(&store, first).await?;
    ensure_eq("id of the joined job", joined(&store).await?.id, id)?;
    finish_with(&store, &claim, "done").await?;
    let job = joined(&store).await?;
    ensure_eq("id of the joined job", job.id, id)?;
    ensure_eq("status of the joined job", job.status, Status::Succeeded)
}

pub(super) async fn key_of_a_canceled_job_joins_it<S: Store>(store: S) -> CheckResult {
    let first = keyed(b"a request");
    let id = first.id;
    let _claim = claim(&store, first).await?;
    cancel(&store, id).await?;
    let job = joined(&store).await?;
    ensure_eq("id of the joined job", job.id, id)?;
    ensure_eq("status of the joined job", job.status, Status::Canceled)
}

pub(super) async fn key_of_another_request_is_refused<S: Store>(store: S) -> CheckResult {
    let claim = claim(&store, keyed(b"a request")).await?;
    for _ in ["unfinished", "ended"] {
        match accept(&store, &keyed(b"another request")).await? {
            Acceptance::KeyReused => {}
            other => return Err(unexpected_acceptance("KeyReused", &other)),
        }
        finish_with(&store, &claim, "done").await?;
    }
    Ok(())
}

pub(super) async fn concurrent_requests_of_a_key_are_one_job<S: Store>(store: S) -> CheckResult {
    let jobs = [keyed(b"a request"), keyed(b"a request")];
    let (one, other) = join!(accept(&store, &jobs[0]), accept(&store, &jobs[1]));
    let accepted = [one?, other?];
    let claims = accepted
        .iter()
        .filter(|accepted| matches!(accepted, Acceptance::RunHere(_)));
    ensure_eq("number of claims", claims.count(), 1)?;
    let refused = accepted
        .iter()
        .find(|accepted| !matches!(accepted, Acceptance::RunHere(_) | Acceptance::Joined(_)));
    match refused {
        // The store could not wait for the other request to get its job.
        None | Some(Acceptance::Queued) => Ok(()),
        Some(other) => Err(unexpected_acceptance("Joined", other)),
    }
}

pub(super) async fn join_only_request_becomes_no_job<S: Store>(store: S) -> CheckResult {
    let mut joining = keyed(b"a request");
    joining.join_only = true;
    match accept(&store, &joining).await? {
        Acceptance::Full => {}
        other => return Err(unexpected_acceptance("Full", &other)),
    }
    let first = keyed(b"a request");
    let id = first.id;
    let _claim = claim(&store, first).await?;
    match accept(&store, &joining).await? {
        Acceptance::Joined(job) => ensure_eq("id of the joined job", job.id, id),
        other => Err(unexpected_acceptance("Joined", &other)),
    }
}

pub(super) async fn key_of_a_deleted_job_is_free<S: Store>(store: S) -> CheckResult {
    for end_first in [true, false] {
        let first = keyed(b"a request");
        let id = first.id;
        let first = claim(&store, first).await?;
        if end_first {
            finish_with(&store, &first, "done").await?;
        }
        forget(&store, id).await?;
        let second = keyed(b"another request");
        let id = second.id;
        let _claim = claim(&store, second).await?;
        forget(&store, id).await?;
    }
    Ok(())
}

pub(super) async fn released_key_is_free<S: Store>(store: S) -> CheckResult {
    let first = keyed(b"a request");
    let first_id = first.id;
    let first = claim(&store, first).await?;
    let writer = store.respond(&first, response_head(), None);
    let mut end = End::new(Outcome::Response(writer));
    end.key = KeyOutcome::Release;
    let finished = finish(&store, &first, end).await?;
    ensure_eq("the first end", finished, Finished::First)?;

    // The key is free for any request, and belongs to its job from then on.
    let second = keyed(b"another request");
    let second_id = second.id;
    let _claim = claim(&store, second).await?;
    forget(&store, first_id).await?;
    match accept(&store, &keyed(b"another request")).await? {
        Acceptance::Joined(job) => ensure_eq("id of the joined job", job.id, second_id)?,
        other => return Err(unexpected_acceptance("Joined", &other)),
    }
    let page = within("a list", store.list(&crate::job::Filter::new())).await??;
    let Some(job) = page.jobs.first() else {
        return Err(Violation::new("expected the second job in the list"));
    };
    ensure(
        job.id == second_id && page.jobs.len() == 1,
        "one job in the list",
    )
}
