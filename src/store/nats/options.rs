use std::{any::type_name, fmt, sync::Arc, time::Duration};

use http::Extensions;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// How accepted work is kept in JetStream: [`NatsStore::connect`](super::NatsStore::connect).
///
/// All processes that share jobs have to set the same, but for [`max_bytes`](Self::max_bytes) and what
/// says so.
#[derive(Debug, Clone)]
#[must_use = "options do nothing until they are given to `NatsStore::connect`"]
pub struct NatsOptions {
    pub(super) prefix: String,
    pub(super) replicas: usize,
    pub(super) storage: Storage,
    pub(super) retain: Duration,
    pub(super) max_bytes: usize,
    pub(super) max_queued: Option<u64>,
    pub(super) max_queued_for: Duration,
    pub(super) lease: Duration,
    pub(super) attempts: u32,
    pub(super) rerun: Rerun,
    pub(super) ack_timeout: Duration,
    pub(super) inline: usize,
    pub(super) carried: Vec<CarriedExtension>,
}

/// Where JetStream keeps what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// In files: it is there after a restart of every server.
    #[default]
    File,
    /// In the servers' memory: it is there as long as a majority of the replicas runs.
    Memory,
}

/// Which requests are run once more when the process that ran them is gone before they ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rerun {
    /// Those of an idempotent method (RFC 9110 §9.2.2), and those with an `Idempotency-Key`; any other
    /// ends as [`lost`](crate::ErrorCode::Lost).
    #[default]
    Idempotent,
    /// All of them: the inner service itself sees to it that nothing is done twice.
    Always,
    /// None of them.
    Never,
}

/// What keeps extensions of a type with a request.
#[derive(Clone)]
pub(super) struct CarriedExtension {
    name: String,
    read: Arc<Read>,
    write: Arc<Write>,
}

type Read = dyn Fn(&Extensions) -> Option<Value> + Send + Sync;
type Write = dyn Fn(&mut Extensions, Value) -> Result<(), serde_json::Error> + Send + Sync;

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            prefix: "accepted".to_owned(),
            replicas: 1,
            storage: Storage::File,
            retain: Duration::from_secs(3600),
            max_bytes: 256 << 20,
            max_queued: Some(1_000_000),
            max_queued_for: Duration::from_secs(7 * 24 * 3600),
            lease: Duration::from_secs(30),
            attempts: 5,
            rerun: Rerun::Idempotent,
            ack_timeout: Duration::from_secs(3),
            inline: 128 << 10,
            carried: Vec::new(),
        }
    }
}

impl NatsOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the names of streams and subjects begin with. Default: `accepted`.
    ///
    /// # Panics
    ///
    /// If it is empty or has other characters than letters, digits, `-` and `_`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert!(
            !prefix.is_empty() && prefix.bytes().all(valid),
            "not a prefix that streams can have: {prefix:?}"
        );
        self.prefix = prefix;
        self
    }

    /// On how many servers everything is kept, 1 to 5. Default: 1.
    ///
    /// With 3 one of them can be lost, with 5 two; with 1 or 2 none.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas.clamp(1, 5);
        self
    }

    /// Where JetStream keeps it. Default: [`Storage::File`].
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// How long a job is kept after its end, 1 s at least. Default: one hour.
    ///
    /// A key that was used for it, and its place in its owner's list, are kept as long.
    pub fn retain(mut self, retain: Duration) -> Self {
        self.retain = retain.max(Duration::from_secs(1));
        self
    }

    /// How many bytes of this process's memory there are for bodies being read, results being collected,
    /// and large results while they are sent. Default: 256 MiB.
    ///
    /// A large result that there is no room for is answered 503, so it has to hold the largest.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How many requests may be in the queue, those that run included; `None` for as many as the
    /// servers take. Default: 1,000,000.
    ///
    /// One more is answered 503. Each process counts for itself, and asks the queue once a second, so that
    /// several of them may pass it by what they accept in a second. Each may have its own.
    pub fn max_queued(mut self, requests: impl Into<Option<u64>>) -> Self {
        self.max_queued = requests.into();
        self
    }

    /// How long a large body is kept for a request that waits. Default: seven days.
    ///
    /// A request whose body is gone when its turn comes ends as [`lost`](crate::ErrorCode::Lost); small
    /// bodies, see [`inline`](Self::inline), are kept as long as their request.
    pub fn max_queued_for(mut self, time: Duration) -> Self {
        self.max_queued_for = time.max(Duration::from_secs(1));
        self
    }

    /// For how long a process that runs a request may give no sign of life before the request is handed
    /// to another one, 1 s at least. Default: 30 s.
    ///
    /// It gives a sign three times as often. What a request does that blocks its runtime for so long
    /// looks like death, and so does a cluster that takes so long to elect a leader: less than 5 s is for tests.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_secs(1));
        self
    }

    /// How many processes a request may take with it. Default: 5.
    ///
    /// Then it ends as [`lost`](crate::ErrorCode::Lost). From the second on there is a pause of a lease before it is begun
    /// again, which doubles. A process that hands it back when it is shut down does not count.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Which requests are begun again. Default: [`Rerun::Idempotent`].
    pub fn rerun(mut self, rerun: Rerun) -> Self {
        self.rerun = rerun;
        self
    }

    /// How long JetStream may take to confirm a write, before it is repeated, once. Default: 3 s.
    ///
    /// So a request is answered 503 after about twice that time where no majority of the replicas can
    /// be reached. Each process may have its own.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = timeout.max(Duration::from_millis(100));
        self
    }

    /// Up to which size a body is kept in its record, in bytes; a larger one is cut into parts of its
    /// own. Default: 128 KiB; never more than half of what the servers take in one message.
    ///
    /// Each process may have its own.
    pub fn inline(mut self, bytes: usize) -> Self {
        self.inline = bytes;
        self
    }

    /// Takes the extensions of this type along to whichever process runs a request, under a name. Default:
    /// none crosses; header fields all do.
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use tower_accepted::store::NatsOptions;
    ///
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct User(String); // put there by an authentication layer outside
    ///
    /// let options = NatsOptions::new().carry::<User>("user");
    /// # let _ = options;
    /// ```
    pub fn carry<T>(mut self, name: impl Into<String>) -> Self
    where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    {
        let read = |extensions: &Extensions| {
            let value = serde_json::to_value(extensions.get::<T>()?);
            if let Err(error) = &value {
                let name = type_name::<T>();
                tracing::error!(%error, name, "an extension cannot be carried");
            }
            value.ok()
        };
        let write = |extensions: &mut Extensions, value| {
            extensions.insert(serde_json::from_value::<T>(value)?);
            Ok(())
        };
        self.carried.push(CarriedExtension {
            name: name.into(),
            read: Arc::new(read),
            write: Arc::new(write),
        });
        self
    }

    /// What of a request's extensions goes with it.
    pub(super) fn pack(&self, extensions: &Extensions) -> Map<String, Value> {
        let carried = self.carried.iter();
        carried
            .filter_map(|carried| Some((carried.name.clone(), (carried.read)(extensions)?)))
            .collect()
    }

    /// Puts it into the extensions of the request where that is run.
    pub(super) fn unpack(&self, mut packed: Map<String, Value>, extensions: &mut Extensions) {
        for carried in &self.carried {
            if let Some(value) = packed.remove(&carried.name)
                && let Err(error) = (carried.write)(extensions, value)
            {
                tracing::error!(%error, name = carried.name, "an extension is not what it was");
            }
        }
    }
}

impl fmt::Debug for CarriedExtension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CarriedExtension").field(&self.name).finish()
    }
}
