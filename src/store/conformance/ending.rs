//! Checks of the ends of jobs.

use std::time::Duration;

use tokio::{join, time::Instant};

use super::{
    fixtures::{
        cancel, canceled, claim, claim_new, ensure_result, ensure_same_body, ensure_unknown,
        finish, finish_with, finish_without, forget, found, found_by, look_up, read,
    },
    violation::{CheckResult, Violation, ensure, ensure_eq, within},
};
use crate::{
    job::{CallbackTarget, ErrorCode, JobId, Owner, Status},
    store::{End, Finished, Lookup, NewJob, Outcome, Revisions, Store},
};

pub(super) async fn first_end_wins<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    let first = finish_with(&store, &claim, "first").await?;
    ensure_eq("the first end", first, Finished::First)?;
    let second = finish_with(&store, &claim, "another").await?;
    ensure_eq("a second end", second, Finished::Late)?;
    let job = found_by(cancel(&store, id).await?)?;
    ensure_eq("status after a late cancel", job.status, Status::Succeeded)?;
    drop(claim);

    let job = found(&store, id).await?;
    ensure_eq("status", job.status, Status::Succeeded)?;
    let length = job.response.map(|response| response.content_length);
    ensure_eq("content length", length, Some(5))?;
    ensure(job.finished_at.is_some(), "the job to have finished_at")?;
    ensure(job.expires_at > job.finished_at, "expires_at to be later")?;
    ensure_eq("estimated_finish_at", job.estimated_finish_at, None)?;
    let result = ensure_result(read(&store, id, 0).await?)?;
    ensure_same_body(&result.body, b"first")
}

pub(super) async fn one_of_two_concurrent_ends_wins<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    let (finished, found) = join!(finish_with(&store, &claim, "done"), cancel(&store, id));
    let after_cancel = found_by(found?)?.status;
    let expected = match finished? {
        Finished::First => Status::Succeeded,
        Finished::Late => Status::Canceled,
        other => {
            return Err(Violation::new(format!(
                "expected First or Late, got {other:?}"
            )));
        }
    };
    ensure_eq("status after the cancel", after_cancel, expected)?;
    let job = found_by(look_up(&store, id).await?)?;
    ensure_eq("status", job.status, expected)
}

pub(super) async fn end_has_what_the_call_reported<S: Store>(store: S) -> CheckResult {
    let mut job = NewJob::new(JobId::random());
    let (id, created_at) = (job.id, job.created_at);
    job.owner = Some(Owner::new("me"));
    job.title = Some("a report".into());
    job.callbacks = Some([CallbackTarget::new("https://example.com/hook", [])].into());
    let (owner, callbacks) = (job.owner, job.callbacks.clone());
    let started = job.created;
    let claim = claim(&store, job).await?;
    // A call that ends at once reports nothing before.
    let mut end = End::new(Outcome::NoResponse(ErrorCode::Panic));
    end.started = Some(started);
    end.progress.fraction = Some(0.75);
    end.progress.message = Some("page 3 of 4".into());
    let progress = end.progress.clone();
    end.progress.title = Some("the report of 2026".into());
    let title = end.progress.title.clone();
    let finished = finish(&store, &claim, end).await?;
    ensure_eq("the first end", finished, Finished::First)?;

    let job = found(&store, id).await?;
    ensure_eq("status", job.status, Status::Failed)?;
    ensure_eq("progress", job.progress, progress)?;
    ensure_eq("attempt", job.attempt, 1)?;
    ensure_eq("owner", job.owner, owner)?;
    ensure_eq("title", job.title, title)?;
    ensure_eq("callbacks", job.callbacks, callbacks)?;
    let delay = job.started_at.map(|at| at.duration_since(created_at));
    let is_started = delay.is_some_and(|delay| delay.unwrap_or_default() < Duration::from_secs(60));
    ensure(is_started, "started_at to be close to created_at")
}

pub(super) async fn end_without_a_response_has_its_reason<S: Store>(store: S) -> CheckResult {
    for code in [
        ErrorCode::Panic,
        ErrorCode::Timeout,
        ErrorCode::InnerError,
        ErrorCode::BodyError,
        ErrorCode::ResultTooLarge,
    ] {
        let (id, claim) = claim_new(&store).await?;
        let mut end = End::new(Outcome::NoResponse(code));
        end.started = Some(Instant::now());
        let finished = finish(&store, &claim, end).await?;
        ensure_eq("the first end", finished, Finished::First)?;
        let job = found(&store, id).await?;
        ensure_eq("status", job.status, Status::Failed)?;
        let reason = job.error.map(|failure| failure.code);
        ensure_eq("error code", reason, Some(code))?;
        ensure(job.response.is_none(), "no response")?;
    }
    Ok(())
}

pub(super) async fn canceled_job_notifies_its_call<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    let mut poll = std::future::poll_fn(|cx| {
        std::task::Poll::Ready(store.poll_canceled(&claim, cx).is_ready())
    });
    ensure(
        !(&mut poll).await,
        "poll_canceled to be pending before the cancel",
    )?;
    // Waits already when the cancel comes, so that the store must wake it.
    let (waited, job) = join!(canceled(&store, &claim), cancel(&store, id));
    waited?;
    let job = found_by(job?)?;
    ensure_eq("status", job.status, Status::Canceled)?;
    let reason = job.error.map(|failure| failure.code);
    ensure_eq("error code", reason, Some(ErrorCode::Canceled))?;
    let late = finish_with(&store, &claim, "late").await?;
    ensure_eq("an end after the cancel", late, Finished::Late)?;
    ensure_eq("status", found(&store, id).await?.status, Status::Canceled)?;
    let result = read(&store, id, 0).await?;
    ensure(result.is_none(), "no result of a canceled job")
}

pub(super) async fn deleted_job_is_unknown<S: Store>(store: S) -> CheckResult {
    let (running, claim) = claim_new(&store).await?;
    found_by(forget(&store, running).await?)?;
    canceled(&store, &claim).await?;
    ensure_unknown(&look_up(&store, running).await?)?;
    let late = finish_without(&store, &claim, ErrorCode::Panic).await?;
    ensure_eq("an end after the delete", late, Finished::Late)?;

    let (ended, claim) = claim_new(&store).await?;
    finish_with(&store, &claim, "done").await?;
    let job = found_by(forget(&store, ended).await?)?;
    ensure_eq("status before the delete", job.status, Status::Succeeded)?;
    for id in [running, ended] {
        ensure_unknown(&look_up(&store, id).await?)?;
        ensure_unknown(&forget(&store, id).await?)?;
        let result = read(&store, id, 0).await?;
        ensure(result.is_none(), "no result of a deleted job")?;
    }
    Ok(())
}

pub(super) async fn cancel_needs_its_revision<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    let running = found(&store, id).await?.revision;
    let others = [
        Revisions::OneOf(vec![running + 1, running + 2]),
        Revisions::OneOf(Vec::new()),
        Revisions::Except(vec![running]),
    ];
    for revisions in &others {
        let canceled = within("a cancel", store.cancel(id, revisions)).await??;
        ensure(canceled.is_none(), "a cancel at another revision to fail")?;
        let deleted = within("a delete", store.forget(id, revisions)).await??;
        ensure(deleted.is_none(), "a delete at another revision to fail")?;
    }
    let revision = found(&store, id).await?.revision;
    ensure_eq("revision", revision, running)?;
    let matching = Revisions::OneOf(vec![running, running + 1]);
    let canceled = within("a cancel", store.cancel(id, &matching)).await??;
    let canceled = canceled.ok_or_else(|| Violation::new("expected the cancel to succeed"))?;
    let ended = found_by(canceled)?;
    ensure_eq("status", ended.status, Status::Canceled)?;
    drop(claim);

    // The revision of an ended job counts as well.
    let outdated = Revisions::OneOf(vec![running]);
    let canceled = within("a second cancel", store.cancel(id, &outdated)).await??;
    ensure(canceled.is_none(), "a cancel at an old revision to fail")?;
    let deleted = within("a delete", store.forget(id, &outdated)).await??;
    ensure(deleted.is_none(), "a delete at an old revision to fail")?;
    ensure_eq("status", found(&store, id).await?.status, Status::Canceled)?;
    let matching = Revisions::Except(vec![running]);
    let deleted = within("a delete", store.forget(id, &matching)).await??;
    let deleted = deleted.ok_or_else(|| Violation::new("expected the delete to succeed"))?;
    ensure_eq("revision", found_by(deleted)?.revision, ended.revision)?;
    ensure_unknown(&look_up(&store, id).await?)?;
    // A job that is unknown has no revision to check.
    let deleted = within("a second delete", store.forget(id, &outdated)).await??;
    ensure(
        matches!(deleted, Some(Lookup::Unknown)),
        "a deleted job to be Unknown",
    )
}

pub(super) async fn one_of_two_conditional_cancels_wins<S: Store>(store: S) -> CheckResult {
    let (id, _claim) = claim_new(&store).await?;
    let revision = found(&store, id).await?.revision;
    let revisions = Revisions::OneOf(vec![revision]);
    let (one, other) = join!(store.cancel(id, &revisions), store.cancel(id, &revisions));
    let canceled = [one?, other?].iter().flatten().count();
    ensure_eq("cancels that succeeded", canceled, 1)
}
