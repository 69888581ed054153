//! Owns the tasks that send webhooks.

use std::{error::Error, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use futures_core::Stream;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    courier, live,
    receivers::{ReceiverLimits, Receivers},
    send::Sender,
};
use crate::{
    config::ConfigError,
    job::{CallbackTarget, Snapshot},
    store::SharedOutbox,
    webhook::{PublicKey, RootCertificateError, WebhookClient, Webhooks},
};

/// A lease lasts this many time limits, so that no other process sends beside a slow one.
const LEASE_FACTOR: u32 = 4;

/// The minimum duration of a lease. It covers the settlement too, which waits for the store.
const MIN_LEASE: Duration = Duration::from_secs(60);

/// The time limit for tasks that a drain has ended.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Owns the tasks that send webhooks. They end when it is dropped.
pub(crate) struct Notifier {
    webhooks: Arc<Webhooks>,
    sender: Arc<Sender>,
    /// The task that sends, until there is a runtime. Held to take it.
    courier: Mutex<Option<CourierTask>>,
    /// Canceled when a drain begins.
    draining: CancellationToken,
    /// Canceled when the courier has ended.
    ended: CancellationToken,
    /// Canceled to end all tasks.
    stopped: CancellationToken,
    tasks: TaskTracker,
}

type CourierTask = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Notifier {
    /// Creates the tasks, and starts them if there is a runtime.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no secret, or if root certificates are missing or invalid.
    pub(crate) fn new<E: Error + Send + Sync + 'static>(
        webhooks: Arc<Webhooks>,
        outbox: SharedOutbox<E>,
    ) -> Result<Self, ConfigError> {
        if webhooks.secrets.is_empty() {
            return Err(ConfigError::NoWebhookSecret);
        }
        let client = WebhookClient::new(&webhooks.client);
        let client = client.map_err(|error| match error {
            RootCertificateError::Missing => ConfigError::NoRootCertificate,
            RootCertificateError::Invalid(error) => {
                ConfigError::InvalidRootCertificate(error.to_string())
            }
        })?;
        let receivers = Receivers::new(ReceiverLimits {
            connections: webhooks.max_connections,
            each: webhooks.max_per_receiver,
            rate: webhooks.max_rate,
            lease: (webhooks.client.timeout * LEASE_FACTOR).max(MIN_LEASE),
        });
        let sender = Arc::new(Sender {
            webhooks: webhooks.clone(),
            client,
            receivers: Arc::new(receivers),
        });
        let (draining, tasks) = (CancellationToken::new(), TaskTracker::new());
        let stopped = CancellationToken::new();
        let courier = courier::run(
            sender.clone(),
            outbox,
            draining.clone(),
            stopped.clone(),
            tasks.clone(),
        );
        let notifier = Self {
            webhooks,
            sender,
            courier: Mutex::new(Some(Box::pin(courier))),
            draining,
            ended: CancellationToken::new(),
            stopped,
            tasks,
        };
        notifier.start();
        Ok(notifier)
    }

    pub(crate) fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    /// Returns the keys that verify the signatures of private keys.
    pub(crate) fn public_keys(&self) -> impl Iterator<Item = PublicKey> {
        let secrets = self.webhooks.secrets.iter();
        secrets.filter_map(|secret| secret.public_key())
    }

    /// Starts to send, if there is a runtime.
    pub(crate) fn start(&self) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Some(courier) = self.courier.lock().take() else {
            return;
        };
        // Dropped in any case: if the task ends, panics or is dropped with its runtime.
        let ended = self.ended.clone().drop_guard();
        let run = async move {
            let _ended = ended;
            courier.await;
        };
        self.tasks.spawn_on(run, &runtime);
    }

    /// Notifies those of a job's targets that want it while the job runs. `changes` follows the
    /// job.
    pub(crate) fn follow<C>(&self, targets: &[CallbackTarget], changes: impl Fn() -> C)
    where
        C: Stream<Item = Snapshot> + Send + 'static,
    {
        self.start();
        for (number, target) in (0..).zip(targets).filter(|(_, it)| live::is_live(it)) {
            let follow = live::follow(self.sender.clone(), changes(), target.clone(), number);
            let stopped = self.stopped.clone();
            self.tasks
                .spawn(async move { stopped.run_until_cancelled(follow).await });
        }
    }

    /// Waits until what is due has been sent, at most until `deadline`. Nothing is sent afterwards.
    ///
    /// Durable deliveries stay for the next process, except those in flight.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped, what is due is still sent. It may be called again.
    pub(crate) async fn drain(&self, deadline: Instant) {
        self.start();
        self.draining.cancel();
        if timeout_at(deadline, self.ended.cancelled()).await.is_err() {
            tracing::warn!("stopped sending webhooks: the drain timed out");
        }
        self.stopped.cancel();
        self.tasks.close();
        let _ = timeout(STOP_TIMEOUT, self.tasks.wait()).await;
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.stopped.cancel();
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier")
            .field("webhooks", &self.webhooks)
            .finish_non_exhaustive()
    }
}
