//! The right to end a job in the file.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    backlog::Owed,
    cache::{CachedJob, UnwrittenReport},
    clock::{timestamp, unix_millis, unix_now},
    error::SqliteError,
    process::Process,
    row::JobRow,
    step::Step,
};
use crate::{
    ErrorCode, JobId,
    store::{Charge, News, Report},
};

/// The right to end a job in the file.
///
/// If the job has not ended, dropping this hands the request back: a worker of any process runs it.
/// If its call has begun and must not be repeated, the job ends as [`ErrorCode::Shutdown`].
pub struct SqliteClaim {
    process: Arc<Process>,
    pub(super) job: Arc<CachedJob>,
    pub(super) claim: i64,
    pub(super) may_rerun: bool,
    /// The charge of the request, if it did not come from the queue.
    _charge: Option<Charge>,
    /// Held for a single poll.
    lost: Mutex<LostClaim>,
    /// Held for a single poll.
    begin: Mutex<Begin>,
}

/// Watches for an end from elsewhere. The future is created when it is needed.
enum LostClaim {
    Unwatched(CancellationToken),
    Watched(Pin<Box<WaitForCancellationFutureOwned>>),
}

/// The step before a call that must not be repeated.
enum Begin {
    Due,
    Writing(Pin<Box<dyn Future<Output = ()> + Send>>),
    Done,
}

impl SqliteClaim {
    /// Creates the claim of a row that has been committed, and published with [`Step::hold`].
    pub(super) fn new(
        process: &Arc<Process>,
        row: &JobRow,
        claim: i64,
        charge: Option<Charge>,
    ) -> Self {
        let (job, lost) = process.shared.cache.held(row.id, claim);
        Self {
            process: process.clone(),
            job,
            claim,
            may_rerun: row.may_rerun,
            _charge: charge,
            lost: Mutex::new(LostClaim::Unwatched(lost)),
            begin: Mutex::new(if row.has_begun {
                Begin::Done
            } else {
                Begin::Due
            }),
        }
    }

    /// Completes once another end holds, or another process has the job.
    pub(super) fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut lost = self.lost.lock();
        if let LostClaim::Unwatched(token) = &*lost {
            if token.is_cancelled() {
                return Poll::Ready(());
            }
            let watched = Box::pin(token.clone().cancelled_owned());
            *lost = LostClaim::Watched(watched);
        }
        match &mut *lost {
            LostClaim::Watched(watched) => watched.as_mut().poll(cx),
            LostClaim::Unwatched(_) => Poll::Pending,
        }
    }

    /// Completes once the file says that the call has begun.
    pub(super) fn poll_begin(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut begin = self.begin.lock();
        if let Begin::Due = *begin {
            let (process, job, claim) = (self.process.clone(), self.job.clone(), self.claim);
            *begin = Begin::Writing(Box::pin(async move {
                let id = job.id;
                let begun = process.commit_with_retries("the start of a call", || {
                    move |step: &mut Step<'_>| step.begin(id, claim)
                });
                // The job has ended elsewhere, or the store is closed.
                if !matches!(begun.await, Ok(true)) {
                    job.lose_claim(claim);
                    std::future::pending::<()>().await;
                }
            }));
        }
        if let Begin::Writing(writing) = &mut *begin {
            std::task::ready!(writing.as_mut().poll(cx));
            *begin = Begin::Done;
        }
        Poll::Ready(())
    }

    /// Hands a report to the writer's thread, which merges those of a few milliseconds.
    pub(super) fn report(&self, report: Report) {
        let mut pending = UnwrittenReport {
            estimated_finish: report.estimated_finish.map(unix_millis),
            ..Default::default()
        };
        match report.news {
            News::Started(at) => pending.started = Some(timestamp(at)),
            News::Progress(progress) => pending.progress = Some(progress),
        }
        if self.job.report(pending) {
            self.process.owe(Owed::Report(self.job.clone()));
        }
    }
}

impl Drop for SqliteClaim {
    fn drop(&mut self) {
        if self.job.claim() != Some(self.claim) {
            return;
        }
        self.process.owe(Owed::Return(self.job.id, self.claim));
    }
}

impl Step<'_> {
    /// Writes that the call of a claim begins now. Returns `false` if the claim is lost.
    pub(super) fn begin(&mut self, id: JobId, claim: i64) -> Result<bool, SqliteError> {
        let Some(mut row) = self.load_held(id, claim)? else {
            return Ok(false);
        };
        row.start(unix_now());
        row.save_report(self.connection)?;
        self.publish(row);
        Ok(true)
    }

    /// Returns the job of a dropped claim.
    pub(super) fn drop_claim(&mut self, id: JobId, claim: i64) -> Result<(), SqliteError> {
        let Some(mut row) = self.load_held(id, claim)? else {
            return Ok(());
        };
        if row.has_begun && !row.may_rerun {
            self.end_without_response(&mut row, ErrorCode::Shutdown)?;
        } else {
            let has_started = row.started_at.is_some();
            row.release(has_started);
        }
        self.save(row)
    }
}

impl fmt::Debug for SqliteClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqliteClaim").field(&self.job.id).finish()
    }
}
