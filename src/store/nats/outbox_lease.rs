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

/// The maximum number of rounds if other processes write the lease at the same time.
const MAX_ROUNDS: usize = 2;

/// The lease as the bucket has it.
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

    /// Takes or renews the lease for `holder`, so that it lasts for this time. Zero ends it.
    ///
    /// Returns `false` if another process has it.
    ///
    /// In a cluster, two processes may both succeed, see [`put_record`](Self::put_record). The next
    /// renewal of one of them fails. Until then both send, which only repeats deliveries.
    pub(super) async fn take_outbox_lease(
        &self,
        holder: u64,
        lasting: Duration,
    ) -> Result<bool, NatsError> {
        let subject = self.names.outbox_lease();
        for _ in 0..MAX_ROUNDS {
            let found = messages::last(&self.streams.jobs, &subject).await?;
            let sequence = found.as_ref().map_or(0, |message| message.sequence);
            if let Some(message) = found {
                let (lease, _) = decode::<OutboxLease>(&subject, message.payload)?;
                if lease.holder != holder && lease.until > unix_now() {
                    return Ok(false);
                }
            }
            let until = unix_now().saturating_add(as_millis(lasting));
            let payload = encode(&OutboxLease { holder, until }, b"");
            match self.publish(&subject, Some(sequence), &payload).await {
                Ok(_) => return Ok(true),
                // Another process was faster, or the write is there and its acknowledgement was
                // lost.
                Err(WriteError::Conflict) => {}
                Err(error) => return Err(error.into_error()),
            }
        }
        Ok(false)
    }
}
