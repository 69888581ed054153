//! The builder of a registry, and the constructors that use it.

mod settings;

use std::time::Duration;

use crate::{
    config::{ConfigError, Settings},
    jobs::Jobs,
    middleware::AcceptedLayer,
    registry::Registry,
    store::{Budget, MemoryStore, Store},
};

/// The default budget of a store in memory, in bytes.
const DEFAULT_MAX_BYTES: usize = 256 << 20;

/// The default retention of ended jobs in memory.
const DEFAULT_RETAIN: Duration = Duration::from_secs(3600);

/// Builds a [`Jobs`].
///
/// Jobs are kept in this process's memory, unless [`store`](Self::store) sets another store. The
/// type parameter is the store, so only a builder in memory has [`retain`](Self::retain).
///
/// ```
/// use tower_accepted::Jobs;
///
/// let jobs = Jobs::builder().max_unfinished(1_000).max_bytes(1 << 30).build();
/// # let _ = jobs;
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct JobsBuilder<S = DefaultStore> {
    settings: Settings,
    kept_in: S,
}

/// The default store of a [`JobsBuilder`]: keeps ended jobs in memory for one hour.
#[derive(Debug, Clone, Default)]
pub struct DefaultStore(());

/// The store of a [`JobsBuilder`] after [`retain`](JobsBuilder::retain) or
/// [`max_keys`](JobsBuilder::max_keys): keeps jobs in memory with those settings.
#[derive(Debug, Clone)]
pub struct InMemory {
    retain: Duration,
    max_keys: Option<usize>,
}

impl Default for JobsBuilder {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            kept_in: DefaultStore::default(),
        }
    }
}

impl Jobs {
    /// Creates a registry in memory with default settings.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Creates a builder for a registry.
    pub fn builder() -> JobsBuilder {
        JobsBuilder::default()
    }
}

impl Default for Jobs {
    fn default() -> Self {
        Self::new()
    }
}

impl AcceptedLayer {
    /// Creates a layer with a registry of its own, in memory and with default settings.
    pub fn new() -> Self {
        Jobs::new().layer()
    }
}

impl Default for AcceptedLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl JobsBuilder {
    /// Keeps jobs in `store`, which has a retention of its own.
    pub fn store<St: Store>(self, store: St) -> JobsBuilder<St> {
        JobsBuilder {
            settings: self.settings,
            kept_in: store,
        }
    }

    /// Sets how long an ended job is kept in memory. Default: one hour.
    pub fn retain(self, retain: Duration) -> JobsBuilder<InMemory> {
        self.in_memory().retain(retain)
    }

    /// Sets the maximum number of idempotency keys that are remembered. Default: 1,000,000.
    ///
    /// A key is remembered for [`Idempotency::keep_for`](crate::Idempotency::keep_for) from the end
    /// of its job, and takes about 160 bytes in addition to [`max_bytes`](Self::max_bytes). At the
    /// maximum, a request with a new key gets 503.
    pub fn max_keys(self, keys: usize) -> JobsBuilder<InMemory> {
        self.in_memory().max_keys(keys)
    }

    /// Creates a registry that keeps jobs in memory.
    ///
    /// # Panics
    ///
    /// Panics if an option is invalid. See [`try_build`](Self::try_build).
    #[track_caller]
    pub fn build(self) -> Jobs {
        unwrap(self.try_build())
    }

    /// Creates a registry that keeps jobs in memory.
    ///
    /// # Errors
    ///
    /// Returns an error if the path of the monitor or the base of links is invalid. With webhooks,
    /// also if there is no secret, if the store has no outbox, or if no root certificate can be
    /// used.
    ///
    /// ```
    /// use tower_accepted::{ConfigError, Jobs};
    ///
    /// let path = "//jobs"; // from a configuration file
    /// let error = Jobs::builder().monitor_path(path).try_build().unwrap_err();
    /// assert_eq!(error, ConfigError::MonitorPath("//jobs".to_owned()));
    /// ```
    pub fn try_build(self) -> Result<Jobs, ConfigError> {
        self.in_memory().try_build()
    }

    fn in_memory(self) -> JobsBuilder<InMemory> {
        JobsBuilder {
            settings: self.settings,
            kept_in: InMemory {
                retain: DEFAULT_RETAIN,
                max_keys: None,
            },
        }
    }
}

impl JobsBuilder<InMemory> {
    /// Sets how long an ended job is kept in memory. Default: one hour.
    pub fn retain(mut self, retain: Duration) -> Self {
        self.kept_in.retain = retain;
        self
    }

    /// Sets the maximum number of idempotency keys that are remembered. Default: 1,000,000.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.kept_in.max_keys = Some(keys);
        self
    }

    /// Creates a registry that keeps jobs in memory.
    ///
    /// # Panics
    ///
    /// Panics if an option is invalid. See [`try_build`](Self::try_build).
    #[track_caller]
    pub fn build(self) -> Jobs {
        unwrap(self.try_build())
    }

    /// Creates a registry that keeps jobs in memory.
    ///
    /// # Errors
    ///
    /// Returns an error if the path of the monitor or the base of links is invalid. With webhooks,
    /// also if there is no secret, if the store has no outbox, or if no root certificate can be
    /// used.
    pub fn try_build(self) -> Result<Jobs, ConfigError> {
        self.settings.check()?;
        let budget = Budget::new(DEFAULT_MAX_BYTES);
        let mut store = MemoryStore::new(self.kept_in.retain, budget);
        if let Some(keys) = self.kept_in.max_keys {
            store = store.with_max_keys(keys);
        }
        Ok(Jobs::with_registry(Registry::new(store, self.settings)?))
    }
}

impl<St: Store> JobsBuilder<St> {
    /// Creates a registry that keeps jobs in the store.
    ///
    /// # Panics
    ///
    /// Panics if an option is invalid. See [`try_build`](Self::try_build).
    #[track_caller]
    pub fn build(self) -> Jobs<St> {
        unwrap(self.try_build())
    }

    /// Creates a registry that keeps jobs in the store.
    ///
    /// # Errors
    ///
    /// Returns an error if the path of the monitor or the base of links is invalid. With webhooks,
    /// also if there is no secret, if the store has no outbox, or if no root certificate can be
    /// used.
    pub fn try_build(self) -> Result<Jobs<St>, ConfigError> {
        self.settings.check()?;
        Ok(Jobs::with_registry(Registry::new(
            self.kept_in,
            self.settings,
        )?))
    }
}

#[track_caller]
fn unwrap<St>(built: Result<Jobs<St>, ConfigError>) -> Jobs<St> {
    built.unwrap_or_else(|error| panic!("{error}"))
}
