//! The lease of the one process that sends deliveries.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    clock::{as_millis, unix_now},
    envelope::{decode, encode},
    error::NatsError,
    jetstream::JetStream,
    messages::{self, WriteError},
};

/// The maximum time after which another process takes over.
const MAX_LEASE: Duration = Duration::from_secs(5);

/// The lease as the stream has it.
#[derive(Debug, Serialize, Deserialize)]
struct OutboxLease {
    /// A random number of the process.
    holder: u64,
    /// The end, in milliseconds since the Unix epoch.
    until: u64,
}

impl JetStream {
    /// Returns how long the lease lasts after it was written.
    pub(super) fn outbox_lease(&self) -> Duration {
        let options = &self.options;
        // The bucket keeps it for the retention.
        options.lease.min(options.retain).min(MAX_LEASE)
    }

    /// Takes the lease for `holder` if it is free or its own. Returns `false` if another process
    /// has it.
    ///
    /// In a cluster, two processes may both succeed, see [`put_record`](Self::put_record). The next
    /// renewal of one of them fails. Until then both send, which only repeats deliveries.
    pub(super) async fn take_outbox_lease(&self, holder: u64) -> Result<bool, NatsError> {
        let subject = self.names.outbox_lease();
        let expected = match messages::last(&self.streams.jobs, &subject).await? {
            None => 0,
            Some(message) => {
                let sequence = message.sequence;
                let (lease, _) = decode::<OutboxLease>(&subject, message.payload)?;
                if lease.holder != holder && lease.until > unix_now() {
                    return Ok(false);
                }
                sequence
            }
        };
        let until = unix_now().saturating_add(as_millis(self.outbox_lease()));
        let payload = encode(&OutboxLease { holder, until }, b"");
        match self.publish(&subject, Some(expected), &payload).await {
            Ok(_) => Ok(true),
            // Another process was faster, or this write is there and its acknowledgement was lost:
            // the next attempt finds out.
            Err(WriteError::Conflict) => Ok(false),
            Err(error) => Err(error.into_error()),
        }
    }
}
