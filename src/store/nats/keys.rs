//! Decides what a request with an idempotency key becomes.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    envelope::encode,
    error::NatsError,
    index::KeyRecord,
    jetstream::JetStream,
    messages::{self, WriteError},
};
use crate::{
    JobId, Snapshot,
    store::{Fingerprint, Key, NewJob},
};

/// The maximum number of rounds if other processes use the key at the same time.
const MAX_ROUNDS: usize = 8;

/// The delay before a job that is being accepted is looked up again.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// The outcome of looking up an idempotency key.
pub(super) enum KeyLookup {
    /// The key is new: the request becomes a job.
    First,
    /// The key's request has a job.
    Joined(Box<Snapshot>),
    /// The key's request never became a job. Create the job with this id.
    Orphaned(JobId),
    /// The key was used for a different request.
    Reused,
    /// The key is new, but no further job is allowed.
    Full,
}

impl JetStream {
    /// Looks up a key, and reserves it for the new job if it is free.
    pub(super) async fn look_up_key(
        &self,
        new: &NewJob,
        key: Key,
        fingerprint: Fingerprint,
    ) -> Result<KeyLookup, NatsError> {
        let subject = self.names.key(&key);
        let record = KeyRecord {
            nonce: rand::random(),
            id: new.id,
            fingerprint,
        };
        let payload = encode(&record, b"");
        for _ in 0..MAX_ROUNDS {
            // Creating the subject is atomic, so one of several concurrent requests is the first.
            if !new.join_only {
                match self.publish(&subject, Some(0), &payload).await {
                    Ok(_) => return Ok(KeyLookup::First),
                    Err(WriteError::Conflict) => {}
                    Err(WriteError::Full) => return Ok(KeyLookup::Full),
                    Err(error) => return Err(error.into_error()),
                }
            }
            let Some((found, sequence)) = self.key_record(&subject).await? else {
                if new.join_only {
                    return Ok(KeyLookup::Full);
                }
                continue;
            };
            if found.nonce == record.nonce {
                return Ok(KeyLookup::First);
            }
            let id = found.id;
            // A majority is enough here. If it misses a job and another is created under the same
            // id, one of the two runs: claims and ends create subjects.
            let job = self
                .job_barrier
                .read_from_majority(|| self.job_at_leader(id))
                .await?
                .map(|job| job.record);
            let is_orphaned = match job {
                Some(job) if job.frees_key() => {
                    if new.join_only {
                        return Ok(KeyLookup::Full);
                    }
                    // Start over with a free key.
                    messages::delete(&self.streams.jobs, sequence).await?;
                    continue;
                }
                Some(_) if found.fingerprint != fingerprint => return Ok(KeyLookup::Reused),
                // A job that its accepting process runs has a record before it has a queue entry.
                // Accepting it may still fail, or the process may have died in between.
                Some(job) if !job.is_ended() && self.queue_entry(id).await?.is_none() => {
                    let record = self.record(id).await?;
                    record.is_some_and(|found| found.record.is_abandoned())
                }
                Some(job) => return Ok(KeyLookup::Joined(Box::new(job.snapshot(id)))),
                None => true,
            };
            if !is_orphaned {
                sleep(RETRY_DELAY).await;
            } else if new.join_only {
                return Ok(KeyLookup::Full);
            } else if found.fingerprint != fingerprint {
                return Ok(KeyLookup::Reused);
            } else {
                return Ok(KeyLookup::Orphaned(id));
            }
        }
        Err(NatsError::unavailable("too many requests use the same key"))
    }
}
