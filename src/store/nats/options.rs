//! The options of the store.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use super::error::NatsError;
use crate::store::{CarriedExtensions, Rerun, default_key_retention};

/// Options for [`NatsStore::connect`](super::NatsStore::connect).
///
/// All processes that share jobs must use the same options. The options that may differ between
/// processes are [`max_queued`](Self::max_queued), [`max_keys`](Self::max_keys),
/// [`ack_timeout`](Self::ack_timeout) and [`inline`](Self::inline).
#[derive(Debug, Clone)]
#[must_use = "options do nothing until they are passed to `NatsStore::connect`"]
pub struct NatsOptions {
    pub(super) prefix: String,
    pub(super) replicas: usize,
    pub(super) storage: Storage,
    pub(super) retain: Duration,
    keep_keys_for: Option<Duration>,
    pub(super) max_keys: Option<u64>,
    pub(super) max_queued: Option<u64>,
    pub(super) max_queued_for: Duration,
    pub(super) lease: Duration,
    pub(super) attempts: u32,
    pub(super) rerun: Rerun,
    pub(super) ack_timeout: Duration,
    pub(super) inline: usize,
    pub(super) carried: CarriedExtensions,
}

/// The storage of the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// Files. Jobs survive a restart of all servers.
    #[default]
    File,
    /// The servers' memory. Jobs survive as long as a majority of the replicas keeps running.
    Memory,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            prefix: "accepted".to_owned(),
            replicas: 1,
            storage: Storage::File,
            retain: Duration::from_secs(3600),
            keep_keys_for: None,
            max_keys: Some(1_000_000),
            max_queued: Some(1_000_000),
            max_queued_for: Duration::from_secs(7 * 24 * 3600),
            lease: Duration::from_secs(30),
            attempts: 5,
            rerun: Rerun::Idempotent,
            ack_timeout: Duration::from_secs(3),
            inline: 128 << 10,
            carried: CarriedExtensions::default(),
        }
    }
}

impl NatsOptions {
    /// Creates the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the prefix of all stream and subject names. Default: `accepted`.
    ///
    /// It has ASCII letters, digits, `-` and `_`. With another prefix,
    /// [`connect`](super::NatsStore::connect) fails with
    /// [`InvalidPrefix`](super::NatsError::InvalidPrefix).
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the number of replicas of each stream, 1 to 5. Default: 1.
    ///
    /// Three replicas tolerate the loss of one server, five the loss of two. One or two replicas
    /// tolerate none.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas.clamp(1, 5);
        self
    }

    /// Sets the storage of the streams. Default: [`Storage::File`].
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// Sets how long an ended job is kept, at least 1 s. Default: one hour.
    ///
    /// The job's entry in its owner's list is kept as long.
    pub fn retain(mut self, retain: Duration) -> Self {
        self.retain = retain.max(Duration::from_secs(1));
        self
    }

    /// Sets how long an idempotency key is remembered, from the end of its job. Default:
    /// [`retain`](Self::retain), and at least 24 hours.
    ///
    /// [`Idempotency::keep_for`](crate::Idempotency::keep_for) can shorten that for the keys of one
    /// layer. A longer time of a layer has no effect, since the stream of keys removes them.
    pub fn keep_keys_for(mut self, time: Duration) -> Self {
        self.keep_keys_for = Some(time);
        self
    }

    /// Sets the maximum number of idempotency keys that are remembered. Default: 1,000,000.
    ///
    /// `None` sets no limit. At the maximum, a request with a new key is answered with 503.
    /// Processes count keys as they count requests, see [`max_queued`](Self::max_queued), and may
    /// use different values.
    pub fn max_keys(mut self, keys: impl Into<Option<u64>>) -> Self {
        self.max_keys = keys.into();
        self
    }

    /// Returns how long a key is remembered from the end of its job, if its layer does not say.
    pub(super) fn key_retention(&self) -> Duration {
        let default = || default_key_retention(self.retain);
        self.keep_keys_for.unwrap_or_else(default)
    }

    /// Returns how long the stream keeps a key. A job keeps its key while its record is renewed.
    pub(super) fn max_key_age(&self) -> Duration {
        self.key_retention().max(self.retain)
    }

    /// Sets the maximum number of requests in the queue, running ones included. Default: 1,000,000.
    ///
    /// `None` sets no limit. Further requests are answered with 503. Each process counts its own
    /// requests and asks for the queue's length once a second. So several processes together may
    /// exceed the limit by what they accept within a second. Processes may use different values.
    pub fn max_queued(mut self, requests: impl Into<Option<u64>>) -> Self {
        self.max_queued = requests.into();
        self
    }

    /// Sets how long a large request body is kept while its request waits, at least 1 s.
    /// Default: seven days.
    ///
    /// A request whose body has expired ends as [`lost`](crate::ErrorCode::Lost). Small bodies (see
    /// [`inline`](Self::inline)) are kept as long as their request.
    pub fn max_queued_for(mut self, time: Duration) -> Self {
        self.max_queued_for = time.max(Duration::from_secs(1));
        self
    }

    /// Sets the lease of a running request, at least 1 s. Default: 30 s.
    ///
    /// A process renews the lease three times per period. If the lease expires, the request goes to
    /// another process. A call that blocks its runtime for that long looks like a dead process, and
    /// so does a cluster that takes that long to elect a leader. Use less than 5 s only in tests.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_secs(1));
        self
    }

    /// Sets the maximum number of processes that may die while they run a request, at least 1.
    /// Default: 5.
    ///
    /// The request then ends as [`lost`](crate::ErrorCode::Lost). After the second death it waits
    /// for one lease before it runs again, and the delay doubles with each further death. A process
    /// that shuts down and requeues the request does not count.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Sets which requests run again after their process has died. Default: [`Rerun::Idempotent`].
    pub fn rerun(mut self, rerun: Rerun) -> Self {
        self.rerun = rerun;
        self
    }

    /// Sets how long to wait for the acknowledgement of a write before it is repeated, at least
    /// 100 ms. Default: 3 s.
    ///
    /// A write is repeated once. So if no majority of the replicas is reachable, a request is
    /// answered with 503 after about twice this time. Processes may use different values.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = timeout.max(Duration::from_millis(100));
        self
    }

    /// Sets the maximum size of a body within its record, in bytes. Default: 128 KiB.
    ///
    /// Larger bodies are split into chunks. Values above half of the servers' `max_payload` count
    /// as that half. Processes may use different values.
    pub fn inline(mut self, bytes: usize) -> Self {
        self.inline = bytes;
        self
    }

    /// Stores the request extension `T` with the request, under `name`.
    ///
    /// By default no extension reaches the process that runs the request. Header fields always do.
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use tower_accepted::store::nats::NatsOptions;
    ///
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct User(String); // inserted by an authentication layer outside the accepting layer
    ///
    /// let options = NatsOptions::new().carry::<User>("user");
    /// # let _ = options;
    /// ```
    pub fn carry<T>(mut self, name: impl Into<String>) -> Self
    where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    {
        self.carried.add::<T>(name);
        self
    }

    /// # Errors
    ///
    /// Returns an error if the prefix cannot be part of a stream's name.
    pub(super) fn check(&self) -> Result<(), NatsError> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if self.prefix.is_empty() || !self.prefix.bytes().all(is_valid) {
            return Err(NatsError::InvalidPrefix(self.prefix.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_that_no_stream_can_have_is_refused() {
        for prefix in ["", "a.b", "a b", "*", ">", "caf\u{e9}"] {
            let checked = NatsOptions::new().prefix(prefix).check();
            assert!(
                matches!(checked, Err(NatsError::InvalidPrefix(found)) if found == prefix),
                "{prefix}"
            );
        }
        assert!(NatsOptions::new().prefix("my_app-2").check().is_ok());
    }
}
