//! Checks of the stream of a job's revisions.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    time::{Duration, SystemTime},
};

use futures_core::Stream;
use tokio::time::Instant;

use super::{
    fixtures::{claim, claim_new, finish_with, found},
    violation::{CheckResult, Violation, ensure, ensure_eq, ensure_same_millisecond, within},
};
use crate::{
    job::{JobId, Progress, Snapshot, Status},
    store::{NewJob, News, Report, Store},
};

async fn next(
    changes: &mut Pin<&mut impl Stream<Item = Snapshot>>,
) -> CheckResult<Option<Snapshot>> {
    let next = poll_fn(|cx| changes.as_mut().poll_next(cx));
    within("the next revision of a job", next).await
}

/// Skips revisions until `is_wanted` holds.
async fn next_where(
    changes: &mut Pin<&mut impl Stream<Item = Snapshot>>,
    expected: &str,
    is_wanted: impl Fn(&Snapshot) -> bool,
) -> CheckResult<Snapshot> {
    let mut seen = 0;
    while let Some(job) = next(changes).await? {
        ensure(job.revision > seen, "each revision to be higher")?;
        seen = job.revision;
        if is_wanted(&job) {
            return Ok(job);
        }
    }
    let text = format!("expected {expected} before the stream ends");
    Err(Violation::new(text))
}

pub(super) async fn follower_sees_the_job_to_its_end<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    let mut changes = pin!(store.changes(id));
    let is_queued = |job: &Snapshot| job.status == Status::Queued;
    let first = next_where(&mut changes, "the queued job", is_queued).await?;
    ensure_eq("revision", first.revision, 1)?;

    let started = Report::new(News::Started(Instant::now()));
    within("a report", store.report(&claim, started)).await??;
    let is_running = |job: &Snapshot| job.status == Status::Running;
    let running = next_where(&mut changes, "the running job", is_running).await?;
    ensure(running.revision > first.revision, "a higher revision")?;
    ensure_eq("attempt", running.attempt, 1)?;
    ensure(
        running.started_at.is_some(),
        "a running job to have started_at",
    )?;

    finish_with(&store, &claim, "done").await?;
    let has_ended = |job: &Snapshot| job.status.is_ended();
    let ended = next_where(&mut changes, "the ended job", has_ended).await?;
    ensure_eq("status", ended.status, Status::Succeeded)?;
    ensure(ended.revision > running.revision, "a higher revision")?;
    let after = next(&mut changes).await?;
    ensure(after.is_none(), "the stream to end with the job")
}

pub(super) async fn follower_sees_reports<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    let mut changes = pin!(store.changes(id));
    let progress = Progress {
        fraction: Some(0.25),
        message: Some("a quarter, dépêché".into()),
        ..Progress::default()
    };
    let mut report = Report::new(News::Progress(progress.clone()));
    let estimate = SystemTime::now() + Duration::from_secs(40);
    report.estimated_finish = Some(estimate);
    within("a report", store.report(&claim, report)).await??;
    let is_reported = |job: &Snapshot| job.progress == progress;
    let job = next_where(&mut changes, "the reported progress", is_reported).await?;
    ensure_same_millisecond("estimated_finish_at", job.estimated_finish_at, estimate)
}

pub(super) async fn report_replaces_the_title<S: Store>(store: S) -> CheckResult {
    let mut job = NewJob::new(JobId::random());
    job.title = Some("a report".into());
    let id = job.id;
    let claim = claim(&store, job).await?;
    let mut changes = pin!(store.changes(id));
    let is_first = |job: &Snapshot| job.title.as_deref() == Some("a report");
    let first = next_where(&mut changes, "the first title", is_first).await?;

    let title = "Jahresabschluß 2026";
    let report = |title: Option<&str>, fraction| {
        let progress = Progress {
            title: title.map(Into::into),
            fraction: Some(fraction),
            ..Progress::default()
        };
        store.report(&claim, Report::new(News::Progress(progress)))
    };
    within("a report", report(Some(title), 0.25)).await??;
    let is_titled = |job: &Snapshot| job.title.as_deref() == Some(title);
    let titled = next_where(&mut changes, "the new title", is_titled).await?;
    ensure(titled.revision > first.revision, "a higher revision")?;
    ensure_eq("progress.title", titled.progress.title, None)?;

    // A report without a title keeps it, and so does the end.
    within("a report", report(None, 0.5)).await??;
    let is_later = |job: &Snapshot| job.progress.fraction == Some(0.5);
    let later = next_where(&mut changes, "the later report", is_later).await?;
    ensure_eq("title", later.title.as_deref(), Some(title))?;
    finish_with(&store, &claim, "done").await?;
    let ended = found(&store, id).await?;
    ensure_eq("title after the end", ended.title.as_deref(), Some(title))
}

pub(super) async fn ended_job_has_one_last_revision<S: Store>(store: S) -> CheckResult {
    let mut none = pin!(store.changes(JobId::random()));
    let first = next(&mut none).await?;
    ensure(first.is_none(), "no revision of an unknown job")?;

    let (id, claim) = claim_new(&store).await?;
    finish_with(&store, &claim, "done").await?;
    let mut changes = pin!(store.changes(id));
    let job = next(&mut changes).await?;
    let status = job.map(|job| job.status);
    ensure_eq("status", status, Some(Status::Succeeded))?;
    let after = next(&mut changes).await?;
    ensure(after.is_none(), "the stream to end with the job")
}

pub(super) async fn late_report_changes_nothing<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    finish_with(&store, &claim, "done").await?;
    let before = found(&store, id).await?;
    let progress = Progress {
        fraction: Some(0.5),
        ..Progress::default()
    };
    for news in [News::Progress(progress), News::Started(Instant::now())] {
        within("a report", store.report(&claim, Report::new(news))).await??;
    }
    let after = found(&store, id).await?;
    ensure_eq("revision", after.revision, before.revision)?;
    ensure_eq("status", after.status, Status::Succeeded)?;
    ensure_eq("progress", after.progress, before.progress)
}
