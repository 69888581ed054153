//! Entries that point to a job: idempotency keys and owners' lists.

use serde::{Deserialize, Serialize};

use super::{
    envelope::{decode, encode},
    error::NatsError,
    jetstream::JetStream,
    messages::{self, WriteError},
    request::JobDetails,
};
use crate::{JobId, Owner, store::Fingerprint};

/// The use of an idempotency key.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    /// A random number per request: identifies a write whose acknowledgement was lost.
    pub(super) nonce: u64,
    pub(super) id: JobId,
    pub(super) fingerprint: Fingerprint,
}

/// A job's entry in its owner's list.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct OwnerEntry {
    pub(super) created_at: u64,
}

impl JetStream {
    /// Reads what a key was used for, and the sequence of that entry.
    pub(super) async fn key_record(
        &self,
        subject: &str,
    ) -> Result<Option<(KeyRecord, u64)>, NatsError> {
        match messages::last(&self.streams.jobs, subject).await? {
            Some(message) => Ok(Some((
                decode(subject, message.payload)?.0,
                message.sequence,
            ))),
            None => Ok(None),
        }
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
            Some((record, sequence)) if record.id == id => {
                messages::delete(&self.streams.jobs, sequence).await
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

    /// Rewrites a job's key and its entry in its owner's list, so that they expire with its record.
    pub(super) async fn refresh_index(
        &self,
        id: JobId,
        details: &JobDetails,
    ) -> Result<(), NatsError> {
        if let Some(key) = &details.key {
            let subject = self.names.key(key);
            if let Some((record, sequence)) = self.key_record(&subject).await?
                && record.id == id
            {
                let payload = encode(&record, b"");
                match self.publish(&subject, Some(sequence), &payload).await {
                    // Another process has refreshed it.
                    Ok(_) | Err(WriteError::Conflict) => {}
                    Err(error) => return Err(error.into_error()),
                }
            }
        }
        self.add_to_owner_list(id, details.owner.as_ref(), details.created_at)
            .await
    }
}
