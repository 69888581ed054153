//! Entries that point to a job: idempotency keys and owners' lists.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{
    clock::{as_millis, unix_now},
    envelope::{decode, encode},
    error::NatsError,
    jetstream::JetStream,
    messages::{self, WriteError},
    request::JobDetails,
};
use crate::{
    JobId, Owner,
    store::{Fingerprint, NewKey},
};

/// The maximum number of rounds if other processes write a key at the same time.
const MAX_ROUNDS: usize = 8;

/// The delay before a key that another process has written is read again.
const RETRY_DELAY: Duration = Duration::from_millis(10);

/// The use of an idempotency key.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    /// A random number per request: identifies a write whose acknowledgement was lost.
    pub(super) nonce: u64,
    pub(super) id: JobId,
    pub(super) fingerprint: Fingerprint,
    /// The time that the key is remembered from the end of its job, in milliseconds. `None` stands
    /// for the time of the options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep_for: Option<u64>,
    /// The key's expiry, in milliseconds since the Unix epoch. Present once the job has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

impl KeyRecord {
    /// Creates the record of a key that is about to be used for the job `id`.
    pub(super) fn new(id: JobId, key: &NewKey) -> Self {
        Self {
            nonce: rand::random(),
            id,
            fingerprint: key.fingerprint,
            keep_for: key.keep_for.map(as_millis),
            expires_at: None,
        }
    }

    /// Returns `true` if the job is known to have ended.
    pub(super) fn is_ended(&self) -> bool {
        self.expires_at.is_some()
    }

    pub(super) fn is_expired(&self) -> bool {
        self.expires_at.is_some_and(|expires| expires <= unix_now())
    }
}

/// A job's entry in its owner's list.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct OwnerEntry {
    pub(super) created_at: u64,
}

/// A key's record as read from the bucket.
pub(super) struct StoredKey {
    pub(super) record: KeyRecord,
    pub(super) sequence: u64,
    /// The time of the write, in milliseconds since the Unix epoch.
    written_at: u64,
}

impl JetStream {
    /// Reads what a key was used for, and the sequence of that entry.
    pub(super) async fn key_record(&self, subject: &str) -> Result<Option<StoredKey>, NatsError> {
        let Some(message) = messages::last(&self.streams.keys, subject).await? else {
            return Ok(None);
        };
        Ok(Some(StoredKey {
            record: decode(subject, message.payload)?.0,
            sequence: message.sequence,
            written_at: message.written_at,
        }))
    }

    /// Removes a job's key, unless another job has it by now.
    pub(super) async fn remove_key(
        &self,
        id: JobId,
        details: &JobDetails,
    ) -> Result<(), NatsError> {
        let Some(key) = &details.key else {
            return Ok(());
        };
        match self.key_record(&self.names.key(key)).await? {
            Some(found) if found.record.id == id => {
                messages::delete(&self.streams.keys, found.sequence).await
            }
            _ => Ok(()),
        }
    }

    /// Adds a job to its owner's list, if it has an owner.
    pub(super) async fn add_to_owner_list(
        &self,
        id: JobId,
        owner: Option<&Owner>,
        created_at: u64,
    ) -> Result<(), NatsError> {
        let Some(owner) = owner else {
            return Ok(());
        };
        let subject = self.names.owned(owner, id);
        let payload = encode(&OwnerEntry { created_at }, b"");
        let written = self.publish(&subject, None, &payload).await;
        written.map(drop).map_err(WriteError::into_error)
    }

    /// Rewrites an unfinished job's key and its entry in its owner's list, so that they do not
    /// expire.
    pub(super) async fn refresh_index(
        &self,
        id: JobId,
        details: &JobDetails,
    ) -> Result<(), NatsError> {
        let refresh_age = self.options.max_key_age() / 4;
        self.rewrite_key(id, details, |found| {
            let age = unix_now().saturating_sub(found.written_at);
            (!found.record.is_ended() && age > as_millis(refresh_age)).then_some(found.record)
        })
        .await?;
        self.add_to_owner_list(id, details.owner.as_ref(), details.created_at)
            .await
    }

    /// Starts the retention of an ended job's key, and renews the job's entry in its owner's list.
    pub(super) async fn end_index(&self, id: JobId, details: &JobDetails) -> Result<(), NatsError> {
        let retention = as_millis(self.options.key_retention());
        self.rewrite_key(id, details, |found| {
            let mut record = found.record;
            let keep_for = record.keep_for.unwrap_or(retention);
            record.expires_at = Some(unix_now().saturating_add(keep_for));
            (!found.record.is_ended()).then_some(record)
        })
        .await?;
        self.add_to_owner_list(id, details.owner.as_ref(), details.created_at)
            .await
    }

    /// Replaces the record of a job's key by what `change` returns, if it returns a record.
    async fn rewrite_key(
        &self,
        id: JobId,
        details: &JobDetails,
        change: impl Fn(&StoredKey) -> Option<KeyRecord>,
    ) -> Result<(), NatsError> {
        let Some(key) = &details.key else {
            return Ok(());
        };
        let subject = self.names.key(key);
        for _ in 0..MAX_ROUNDS {
            let found = self.key_record(&subject).await?;
            let Some(found) = found.filter(|found| found.record.id == id) else {
                return Ok(());
            };
            let Some(record) = change(&found) else {
                return Ok(());
            };
            let payload = encode(&record, b"");
            match self.publish(&subject, Some(found.sequence), &payload).await {
                Ok(_) => return Ok(()),
                // Another process has written it, maybe for another reason.
                Err(WriteError::Conflict) => sleep(RETRY_DELAY).await,
                Err(error) => return Err(error.into_error()),
            }
        }
        Err(NatsError::unavailable("the key keeps changing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_earlier_versions_can_be_read() {
        let text = r#"{"nonce":1,"id":"tQ3nC2hDQ0eY6o1bF9qk5A",
            "fingerprint":"00112233445566778899aabbccddeeff"}"#;
        let record: KeyRecord = serde_json::from_str(text).expect("a record");
        assert!(!record.is_ended() && !record.is_expired());
        let again = serde_json::to_value(record).expect("a record");
        let text: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(again, text);
    }
}
