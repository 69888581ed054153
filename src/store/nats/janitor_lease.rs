//! The lease of the one process that refreshes the queue's records in each period.

use serde::{Deserialize, Serialize};

use super::{
    clock::{as_millis, unix_now},
    envelope::{decode, encode},
    error::NatsError,
    jetstream::JetStream,
    messages::{self, WriteError},
};

#[derive(Debug, Serialize, Deserialize)]
struct JanitorLease {
    /// The start of the last refresh, in milliseconds since the Unix epoch.
    #[serde(rename = "at")]
    begun_at: u64,
    /// Since when no claim record has expired while its request was queued.
    #[serde(rename = "since")]
    claims_since: u64,
}

impl JetStream {
    /// Returns since when the claims of all queued requests are on record.
    ///
    /// A request accepted later that has no record was never claimed.
    pub(super) async fn claims_known_since(&self) -> Result<u64, NatsError> {
        let subject = self.names.janitor_lease();
        match messages::last(&self.streams.jobs, &subject).await? {
            Some(message) => Ok(decode::<JanitorLease>(&subject, message.payload)?
                .0
                .claims_since),
            None => Ok(self.claims_retained_since()),
        }
    }

    /// Returns the same for records that no process has refreshed: the retention, less a margin.
    fn claims_retained_since(&self) -> u64 {
        unix_now().saturating_sub(as_millis(self.refresh_interval()).saturating_mul(3))
    }

    /// Takes the lease, if no process has refreshed the queue in this period.
    ///
    /// Returns the sequence of the lease.
    pub(super) async fn acquire_janitor_lease(&self) -> Result<Option<u64>, NatsError> {
        let subject = self.names.janitor_lease();
        let mut claims_since = self.claims_retained_since();
        let expected = match messages::last(&self.streams.jobs, &subject).await? {
            None => 0,
            Some(message) => {
                let sequence = message.sequence;
                let (lease, _) = decode::<JanitorLease>(&subject, message.payload)?;
                let interval = as_millis(self.refresh_interval());
                // Being a little early is harmless; being late is not.
                if lease.begun_at.saturating_add(interval / 4 * 3) > unix_now() {
                    return Ok(None);
                }
                // The last refresh is recent enough: what it skipped as too young has not expired.
                if lease.begun_at.saturating_add(interval.saturating_mul(2)) > unix_now() {
                    claims_since = lease.claims_since;
                }
                sequence
            }
        };
        self.write_janitor_lease(claims_since, expected).await
    }

    /// Withdraws the lease's promise about claims: a refresh failed, so records may expire.
    pub(super) async fn reset_claims_known(&self, lease: u64) -> Result<(), NatsError> {
        let claims_since = self.claims_retained_since();
        let written = self.write_janitor_lease(claims_since, lease).await;
        written.map(drop)
    }

    /// Writes the lease. Returns its sequence, or `None` if another process was faster.
    async fn write_janitor_lease(
        &self,
        claims_since: u64,
        expected: u64,
    ) -> Result<Option<u64>, NatsError> {
        let begun_at = unix_now();
        let lease = JanitorLease {
            begun_at,
            claims_since,
        };
        let (subject, payload) = (self.names.janitor_lease(), encode(&lease, b""));
        match self.publish(&subject, Some(expected), &payload).await {
            Ok(sequence) => Ok(Some(sequence)),
            Err(WriteError::Conflict) => Ok(None),
            Err(error) => Err(error.into_error()),
        }
    }
}
