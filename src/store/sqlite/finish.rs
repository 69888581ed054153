//! Ends a job that this process runs, or hands it back at a shutdown.

use std::{future::Future, sync::Arc};

use rusqlite::named_params;

use super::{
    claim::SqliteClaim,
    clock::{Millis, timestamp},
    error::SqliteError,
    file_task,
    output::FlushedOutput,
    output_file::OutputFile,
    process::Process,
    response::{CompleteBody, CompleteResponse},
    row::JobRow,
    step::Step,
    writer::SqliteWriter,
};
use crate::{
    ErrorCode, Event, JobId, Progress,
    store::{Charge, End, Finished, KeyOutcome, Outcome},
};

/// The end of a call, in the form that is stored.
struct CompleteEnd {
    id: JobId,
    claim: i64,
    started_at: Option<Millis>,
    progress: Progress,
    event: Event,
    response: Option<CompleteResponse>,
    key: KeyOutcome,
    /// The published part of a response that broke off.
    broken: Option<Arc<FlushedOutput>>,
    /// The charge of the response.
    _charge: Option<Charge>,
}

/// Ends a job. A job that may run again is handed back instead if the process shuts down.
pub(super) fn finish(
    process: Arc<Process>,
    claim: &SqliteClaim,
    end: End<SqliteWriter>,
) -> impl Future<Output = Result<Finished, SqliteError>> + Send + use<> {
    let (id, may_rerun, job) = (claim.job.id, claim.may_rerun, claim.job.clone());
    let claim = claim.claim;
    async move {
        let started_at = end.started.map(timestamp);
        let may_run_again = may_rerun || end.started.is_none();
        let mut broken = None;
        let (event, response, charge) = match end.outcome {
            Outcome::NoResponse(ErrorCode::Shutdown) if may_run_again => {
                let what = "the return of a request to the queue";
                let handing_back = process.commit_with_retries(what, || {
                    move |step: &mut Step<'_>| step.hand_back(id, claim, started_at)
                });
                return handing_back.await;
            }
            Outcome::NoResponse(code) => {
                broken = job.output().filter(|output| output.claim == claim);
                if let Some(output) = &broken {
                    output.with_file(OutputFile::break_off);
                    file_task::write(&process, &job, output);
                    file_task::settled(output).await;
                }
                (Event::NoResponse(code), None, None)
            }
            Outcome::Response(writer) => {
                let (response, charge) = writer.finish().await?;
                (Event::Responded(response.status), Some(response), charge)
            }
        };
        let end = Arc::new(CompleteEnd {
            id,
            claim,
            started_at,
            progress: end.progress,
            event,
            response,
            key: end.key,
            broken,
            _charge: charge,
        });
        let finishing = process.commit_with_retries("the end of a job", || {
            let end = end.clone();
            move |step: &mut Step<'_>| step.finish(&end)
        });
        finishing.await
    }
}

impl Step<'_> {
    fn finish(&mut self, end: &CompleteEnd) -> Result<Finished, SqliteError> {
        let mut row = match self.load(end.id)? {
            Some(row) if row.is_held_by(end.claim) => row,
            row => return Ok(explain_late_end(row.as_ref(), end.claim)),
        };
        if let Some(at) = end.started_at {
            row.start(at);
        }
        row.set_progress(end.progress.clone());
        if let Some(output) = &end.broken {
            self.extend_response(row.seq, row.attempts, output)?;
        }
        row.response = end.response.as_ref().map(|response| response.shown.clone());
        self.end(&mut row, end.event, end.key)?;
        if let Some(response) = &end.response {
            match &response.body {
                CompleteBody::Row(body) => self.insert_response(&row, response, body)?,
                CompleteBody::Output(output) => {
                    self.extend_response(row.seq, row.attempts, output)?;
                    self.complete_response(row.seq, response)?;
                }
            }
        }
        self.save(row)?;
        Ok(Finished::First)
    }

    fn insert_response(
        &mut self,
        row: &JobRow,
        response: &CompleteResponse,
        body: &[u8],
    ) -> Result<(), SqliteError> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO response (job, run, is_complete, head, length, file_start, body) \
             VALUES (:job, :run, TRUE, :head, :length, 0, :body)",
        )?;
        statement.execute(named_params! {
            ":job": row.seq,
            ":run": row.attempts,
            ":head": response.head,
            ":length": response.length,
            ":body": body,
        })?;
        Ok(())
    }

    pub(super) fn hand_back(
        &mut self,
        id: JobId,
        claim: i64,
        started_at: Option<Millis>,
    ) -> Result<Finished, SqliteError> {
        let mut row = match self.load(id)? {
            Some(row) if row.is_held_by(claim) => row,
            row => return Ok(explain_late_end(row.as_ref(), claim)),
        };
        if let Some(at) = started_at {
            row.start(at);
        }
        row.release(started_at.is_some());
        self.save(row)?;
        Ok(Finished::HandedBack)
    }
}

/// Returns why a claim could not end its job.
fn explain_late_end(row: Option<&JobRow>, claim: i64) -> Finished {
    match row {
        // Another process considered this one dead.
        Some(row) if row.claim != Some(claim) || row.error == Some(ErrorCode::Lost) => {
            Finished::TakenOver
        }
        // Ended by this claim or a cancel, handed back, or deleted.
        _ => Finished::Late,
    }
}
