//! The options of the store.

use std::{fmt, sync::Arc, time::Duration};

use http::HeaderMap;
use serde::{Serialize, de::DeserializeOwned};

use crate::store::{CarriedExtensions, Rerun, default_key_retention};

/// Options for [`SqliteStore::open`](super::SqliteStore::open).
///
/// Processes that share a file should use the same options.
#[derive(Debug, Clone)]
#[must_use = "options do nothing until they are passed to `SqliteStore::open`"]
pub struct SqliteOptions {
    pub(super) retain: Duration,
    keep_keys_for: Option<Duration>,
    pub(super) max_keys: Option<u64>,
    pub(super) max_queued: Option<u64>,
    pub(super) max_disk_bytes: Option<u64>,
    pub(super) attempts: u32,
    pub(super) retry_delay: Duration,
    pub(super) rerun: Rerun,
    pub(super) carried: CarriedExtensions,
    pub(super) edit: Option<EditFields>,
    pub(super) is_observer: bool,
}

/// Edits the fields of a request before it is stored.
#[derive(Clone)]
pub(super) struct EditFields(Arc<dyn Fn(&mut HeaderMap) + Send + Sync>);

impl EditFields {
    pub(super) fn apply(&self, fields: &mut HeaderMap) {
        (self.0)(fields);
    }
}

impl fmt::Debug for EditFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EditFields")
    }
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            retain: Duration::from_secs(3600),
            keep_keys_for: None,
            max_keys: Some(1_000_000),
            max_queued: Some(1_000_000),
            max_disk_bytes: None,
            attempts: 5,
            retry_delay: Duration::from_secs(10),
            rerun: Rerun::Idempotent,
            carried: CarriedExtensions::default(),
            edit: None,
            is_observer: false,
        }
    }
}

impl SqliteOptions {
    /// Creates the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long an ended job is kept. Default: one hour.
    ///
    /// The options of the process that accepts a job decide, whichever process ends it. An expired
    /// job is answered with 410 for as long again.
    pub fn retain(mut self, retain: Duration) -> Self {
        self.retain = retain;
        self
    }

    /// Sets how long an idempotency key is remembered, from the end of its job. Default:
    /// [`retain`](Self::retain), and at least 24 hours.
    ///
    /// [`Idempotency::keep_for`](crate::Idempotency::keep_for) replaces it for one layer.
    pub fn keep_keys_for(mut self, time: Duration) -> Self {
        self.keep_keys_for = Some(time);
        self
    }

    /// Sets the maximum number of idempotency keys that are remembered. Default: 1,000,000.
    ///
    /// `None` sets no limit. At the maximum, a request with a new key is answered with 503.
    pub fn max_keys(mut self, keys: impl Into<Option<u64>>) -> Self {
        self.max_keys = keys.into();
        self
    }

    /// Sets the maximum number of unfinished jobs in the file. Default: 1,000,000.
    ///
    /// `None` sets no limit. Further requests are answered with 503.
    /// [`JobsBuilder::max_unfinished`](crate::JobsBuilder::max_unfinished) limits those of one
    /// process.
    pub fn max_queued(mut self, requests: impl Into<Option<u64>>) -> Self {
        self.max_queued = requests.into();
        self
    }

    /// Sets the maximum size of the file, its log and the files of large bodies, in bytes. Free
    /// pages of the file, and data that no transaction has committed, do not count. Default: no
    /// limit.
    ///
    /// At the maximum, further requests are answered with 503. Running jobs may exceed it, since
    /// their results and deliveries are stored.
    pub fn max_disk_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.max_disk_bytes = bytes.into();
        self
    }

    /// Sets the maximum number of processes that may die while they run a request, at least 1.
    /// Default: 5.
    ///
    /// The request then ends as [`lost`](crate::ErrorCode::Lost). A process that shuts down and
    /// hands the request back does not count.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Sets the delay before a request runs again after the second process has died while it ran.
    /// Default: 10 s. The delay doubles with each further death, up to ten minutes.
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.retry_delay = delay;
        self
    }

    /// Sets which requests run again after their process has died. Default: [`Rerun::Idempotent`].
    pub fn rerun(mut self, rerun: Rerun) -> Self {
        self.rerun = rerun;
        self
    }

    /// Stores the request extension `T` with the request, under `name`.
    ///
    /// By default no extension reaches another process that runs the request. Header fields do,
    /// unless [`edit_fields`](Self::edit_fields) removes them. If the accepting process runs the
    /// request, it has all extensions.
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use tower_accepted::store::sqlite::SqliteOptions;
    ///
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct User(String); // inserted by an authentication layer outside the accepting layer
    ///
    /// let options = SqliteOptions::new().carry::<User>("user");
    /// # let _ = options;
    /// ```
    pub fn carry<T>(mut self, name: impl Into<String>) -> Self
    where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    {
        self.carried.add::<T>(name);
        self
    }

    /// Edits the header fields and the trailers of a request before they are stored. Default: all
    /// are stored.
    ///
    /// The accepting call still has all of them. Only a later call, in any process, gets the stored
    /// ones.
    ///
    /// ```
    /// use http::header::AUTHORIZATION;
    /// use tower_accepted::store::sqlite::SqliteOptions;
    ///
    /// let options = SqliteOptions::new().edit_fields(|fields| {
    ///     fields.remove(AUTHORIZATION);
    /// });
    /// # let _ = options;
    /// ```
    pub fn edit_fields(mut self, edit: impl Fn(&mut HeaderMap) + Send + Sync + 'static) -> Self {
        self.edit = Some(EditFields(Arc::new(edit)));
        self
    }

    /// Opens the file to look at its jobs, to cancel them, or to back it up. Default: off.
    ///
    /// The file must exist. This process then neither takes over the jobs of dead processes nor
    /// removes expired ones, and leases no deliveries. Those that serve the file do.
    pub fn observer(mut self) -> Self {
        self.is_observer = true;
        self
    }

    /// Returns how long a key is remembered from the end of its job, if its layer does not say.
    pub(super) fn key_retention(&self) -> Duration {
        let default = || default_key_retention(self.retain);
        self.keep_keys_for.unwrap_or_else(default)
    }
}
