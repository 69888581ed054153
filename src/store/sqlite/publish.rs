//! Writes what running calls have flushed of their responses.

use std::sync::Arc;

use rusqlite::{OptionalExtension, named_params};

use super::{
    error::SqliteError,
    output::{FlushedOutput, MAX_FRAME_BYTES},
    response::{CompleteResponse, decode_head},
    step::{Change, Step},
};
use crate::ResponseHead;

/// The maximum number of outputs in a transaction, so that they do not delay accepts.
const MAX_OUTPUTS: usize = 128;

/// The number of bytes after which a transaction takes no further output.
const ENOUGH_BYTES: u64 = 1 << 20;

/// The job of a claim that is held.
struct HeldJob {
    seq: i64,
    run: u32,
    has_started: bool,
}

/// The columns of a response that change while it is produced.
struct WrittenPart {
    length: u64,
    file: Option<String>,
}

impl Step<'_> {
    /// Writes some of the outputs that wait. Returns `true` if some are left.
    pub(super) fn write_outputs(&mut self) -> Result<bool, SqliteError> {
        let mut bytes = 0;
        for _ in 0..MAX_OUTPUTS {
            let Some(output) = self.shared.outputs.take() else {
                return Ok(false);
            };
            self.effects.outputs.push(output.clone());
            bytes += match self.write_output(&output) {
                Err(error @ SqliteError::Unreadable { .. }) => {
                    // It would fail again, and keep all other work waiting.
                    tracing::error!(%error, id = %output.id, "failed to publish a response");
                    output.lose();
                    0
                }
                written => written?,
            };
            if bytes >= ENOUGH_BYTES {
                break;
            }
        }
        Ok(!self.shared.outputs.is_empty())
    }

    /// Writes what was flushed of an output, unless its claim is lost. Returns the number of bytes
    /// that went to rows.
    fn write_output(&mut self, output: &Arc<FlushedOutput>) -> Result<u64, SqliteError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, attempts, started_at IS NOT NULL FROM job \
             WHERE id = ?1 AND claim = ?2 AND process IS NOT NULL",
        )?;
        let held = statement.query_row((output.id.to_string(), output.claim), |row| {
            Ok(HeldJob {
                seq: row.get(0)?,
                run: row.get(1)?,
                has_started: row.get(2)?,
            })
        });
        let Some(job) = held.optional()? else {
            output.lose();
            return Ok(0);
        };
        if !job.has_started {
            self.start(output)?;
        }
        self.extend_response(job.seq, job.run, output)
    }

    /// Marks a job as running: its call has a response. Otherwise the job might be handed back as
    /// if its call had not begun, and its run would be counted twice.
    fn start(&mut self, output: &FlushedOutput) -> Result<(), SqliteError> {
        let job = self.shared.cache.find(output.id);
        let reported = job.and_then(|job| job.unwritten_start());
        if let Some(mut row) = self.load(output.id)? {
            row.start(reported.unwrap_or(self.now));
            row.save_report(self.connection)?;
            self.publish(row);
        }
        Ok(())
    }

    /// Writes what was flushed of an output and is not in the file yet. Returns the number of bytes
    /// that went to rows.
    pub(super) fn extend_response(
        &mut self,
        seq: i64,
        run: u32,
        output: &Arc<FlushedOutput>,
    ) -> Result<u64, SqliteError> {
        let found = self.written_part(seq)?;
        let before = match found {
            Some(written) => written,
            None => self.insert_output(seq, run, output)?,
        };
        let mut length = before.length;
        let (rows, file) = output.publishable(length);
        let mut statement = self
            .connection
            .prepare_cached("INSERT INTO part (job, start, body) VALUES (?1, ?2, ?3)")?;
        for part in rows.chunks(MAX_FRAME_BYTES) {
            statement.execute((seq, length, part))?;
            length += part.len() as u64;
        }
        if let Some(file) = &file {
            let is_named = before.file.as_deref() == Some(&*file.body.name);
            if is_named {
                self.totals.file_bytes += file.end - length;
            } else {
                // A file whose sync failed was written anew.
                if let Some(name) = before.file {
                    self.remove_file(name, length - file.start);
                }
                self.add_file(&file.body, file.end - file.start);
            }
            length = file.end;
        }
        if length > before.length {
            let mut statement = self.connection.prepare_cached(
                "UPDATE response SET length = :length, file = :file, file_start = :start \
                 WHERE job = :job",
            )?;
            statement.execute(named_params! {
                ":job": seq,
                ":length": length,
                ":file": file.as_ref().map(|file| &file.body.name),
                ":start": file.as_ref().map_or(0, |file| file.start),
            })?;
        }
        self.effects.changes.push(Change::Extended {
            output: output.clone(),
            run,
            length,
        });
        Ok(rows.len() as u64)
    }

    fn written_part(&self, seq: i64) -> Result<Option<WrittenPart>, SqliteError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT length, file FROM response WHERE job = ?1")?;
        let found = statement.query_row([seq], |row| {
            Ok(WrittenPart {
                length: row.get(0)?,
                file: row.get(1)?,
            })
        });
        Ok(found.optional()?)
    }

    fn insert_output(
        &mut self,
        seq: i64,
        run: u32,
        output: &FlushedOutput,
    ) -> Result<WrittenPart, SqliteError> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO response (job, run, is_complete, head, declared, length, file_start) \
             VALUES (:job, :run, FALSE, :head, :declared, 0, 0)",
        )?;
        statement.execute(named_params! {
            ":job": seq,
            ":run": run,
            ":head": output.head,
            // A longer body never comes.
            ":declared": output.declared.and_then(|length| i64::try_from(length).ok()),
        })?;
        Ok(WrittenPart {
            length: 0,
            file: None,
        })
    }

    /// Completes a response whose body has been written.
    pub(super) fn complete_response(
        &mut self,
        seq: i64,
        response: &CompleteResponse,
    ) -> Result<(), SqliteError> {
        let mut statement = self.connection.prepare_cached(
            "UPDATE response SET is_complete = TRUE, head = ?2 WHERE job = ?1 AND length = ?3",
        )?;
        match statement.execute((seq, &response.head, response.length))? {
            1 => Ok(()),
            _ => Err(SqliteError::unreadable("a response")("its body is cut")),
        }
    }

    /// Returns the head of the part that was published of a response, as the document shows it.
    pub(super) fn partial(&self, seq: i64) -> Result<Option<ResponseHead>, SqliteError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT head, length FROM response WHERE job = ?1")?;
        let found = statement.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)));
        let Some((head, length)): Option<(Vec<u8>, u64)> = found.optional()? else {
            return Ok(None);
        };
        let (head, _) = decode_head(&head)?;
        let (status, headers) = (head.status(), head.headers());
        Ok(Some(ResponseHead::new(status, headers, length)))
    }
}
