//! Decides what a request with an idempotency key becomes.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    envelope::encode,
    error::NatsError,
    index::KeyRecord,
    jetstream::JetStream,
    messages::{self, WriteError},
    process::ProcessState,
};
use crate::{
    JobId, Snapshot,
    store::{Fingerprint, NewJob, NewKey},
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
    /// The job of the key's request has expired.
    Gone,
    /// The key was used for a different request.
    Reused,
    /// The key is new, but no further job is allowed.
    Full,
}

/// The meaning of a key's record for another request with the key.
enum KeyUse {
    Decided(KeyLookup),
    /// The key can be used again.
    Free,
    /// The key's request never became a job.
    Orphaned,
    /// The key's request is being accepted.
    Pending,
}

/// The outcome of creating a key's record.
enum KeyCreation {
    Created,
    /// The key has a record.
    Exists,
    /// No further key is allowed.
    Full,
}

/// Looks up a key, and reserves it for the new job if it is free.
pub(super) async fn look_up_key(
    process: &ProcessState,
    new: &NewJob,
    key: &NewKey,
) -> Result<KeyLookup, NatsError> {
    let jetstream = &process.jetstream;
    let subject = jetstream.names.key(&key.key);
    let record = KeyRecord::new(new.id, key);
    for _ in 0..MAX_ROUNDS {
        let creation = if new.join_only {
            KeyCreation::Full
        } else {
            create_key(process, &subject, &record).await?
        };
        if let KeyCreation::Created = creation {
            return Ok(KeyLookup::First);
        }
        let is_full = matches!(creation, KeyCreation::Full);
        let Some(found) = jetstream.key_record(&subject).await? else {
            if is_full {
                return Ok(KeyLookup::Full);
            }
            continue;
        };
        if found.record.nonce == record.nonce {
            return Ok(KeyLookup::First);
        }
        match jetstream.key_use(&found.record, key.fingerprint).await? {
            KeyUse::Decided(lookup) => return Ok(lookup),
            KeyUse::Pending => sleep(RETRY_DELAY).await,
            _ if new.join_only => return Ok(KeyLookup::Full),
            KeyUse::Orphaned => return Ok(KeyLookup::Orphaned(found.record.id)),
            // Start over with a free key.
            KeyUse::Free => messages::delete(&jetstream.streams.keys, found.sequence).await?,
        }
    }
    Err(NatsError::unavailable("too many requests use the same key"))
}

/// Creates the record of a key, within the limit on keys.
///
/// Creating the subject is atomic, so one of several concurrent requests is the first.
async fn create_key(
    process: &ProcessState,
    subject: &str,
    record: &KeyRecord,
) -> Result<KeyCreation, NatsError> {
    let jetstream = &process.jetstream;
    let limit = jetstream.options.max_keys;
    if limit.is_some_and(|limit| !process.key_depth.try_add(limit)) {
        return Ok(KeyCreation::Full);
    }
    let created = jetstream
        .publish(subject, Some(0), &encode(record, b""))
        .await;
    if limit.is_some() && matches!(created, Err(WriteError::Conflict | WriteError::Full)) {
        process.key_depth.remove_one();
    }
    match created {
        Ok(_) => Ok(KeyCreation::Created),
        Err(WriteError::Conflict) => Ok(KeyCreation::Exists),
        Err(WriteError::Full) => Ok(KeyCreation::Full),
        Err(error) => Err(error.into_error()),
    }
}

impl JetStream {
    /// Finds out what a key's record means for another request with this fingerprint.
    async fn key_use(
        &self,
        found: &KeyRecord,
        fingerprint: Fingerprint,
    ) -> Result<KeyUse, NatsError> {
        if found.is_expired() {
            return Ok(KeyUse::Free);
        }
        let id = found.id;
        // A majority is enough here. If it misses a job and another is created under the same id,
        // one of the two runs: claims and ends create subjects.
        let job = self
            .job_barrier
            .read_from_majority(|| self.job_at_leader(id))
            .await?
            .map(|job| job.record);
        Ok(match job {
            Some(job) if job.frees_key() => KeyUse::Free,
            _ if found.fingerprint != fingerprint => KeyUse::Decided(KeyLookup::Reused),
            Some(job) if job.is_expired() => KeyUse::Decided(KeyLookup::Gone),
            None if found.is_ended() => KeyUse::Decided(KeyLookup::Gone),
            None => KeyUse::Orphaned,
            // A job that its accepting process runs has a record before it has a queue entry.
            // Accepting it may still fail, or the process may have died in between.
            Some(job) if !job.is_ended() && self.queue_entry(id).await?.is_none() => {
                let record = self.record(id).await?;
                if record.is_some_and(|found| found.record.is_abandoned()) {
                    KeyUse::Orphaned
                } else {
                    KeyUse::Pending
                }
            }
            Some(job) => KeyUse::Decided(KeyLookup::Joined(Box::new(job.snapshot(id)))),
        })
    }
}
