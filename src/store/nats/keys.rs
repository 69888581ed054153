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
    store::{Fingerprint, Key, Lookup, NewJob},
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
            let lookup = self
                .job_barrier
                .read_from_majority(|| self.lookup_at_leader(id));
            let is_gone = match lookup.await?.unwrap_or(Lookup::Unknown) {
                Lookup::Found(_) if found.fingerprint != fingerprint => {
                    return Ok(KeyLookup::Reused);
                }
                // A job that its accepting process runs has a record before it has a queue entry.
                // Accepting it may still fail, or the process may have died in between.
                Lookup::Found(snapshot)
                    if !snapshot.status.is_ended() && self.queue_entry(id).await?.is_none() =>
                {
                    match self.record(id).await? {
                        Some(found) if found.record.is_abandoned() => false,
                        _ => {
                            sleep(RETRY_DELAY).await;
                            continue;
                        }
                    }
                }
                Lookup::Found(snapshot) => return Ok(KeyLookup::Joined(snapshot)),
                Lookup::Gone(_) => true,
                Lookup::Unknown => match self.record(id).await? {
                    None => false,
                    Some(found) if found.record.forgotten => true,
                    // The job was created between the two reads.
                    Some(_) => continue,
                },
            };
            if new.join_only {
                return Ok(KeyLookup::Full);
            }
            if is_gone {
                // Free the key of an expired or deleted job, and start over.
                messages::delete(&self.streams.jobs, sequence).await?;
            } else if found.fingerprint != fingerprint {
                return Ok(KeyLookup::Reused);
            } else {
                return Ok(KeyLookup::Orphaned(id));
            }
        }
        Err(NatsError::unavailable("too many requests use the same key"))
    }
}
