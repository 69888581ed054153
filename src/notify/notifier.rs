//! Owns the tasks that send webhooks.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
};

use futures_core::Stream;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    courier, live,
    receivers::{ReceiverLimits, Receivers},
    send::Sender,
};
use crate::{
    config::ConfigError,
    job::Snapshot,
    store::SharedOutbox,
    webhook::{PublicKey, WebhookClient, Webhooks},
};

/// A lease outlasts an attempt by this factor, so that a slow process is not sent beside.
const LEASE_FACTOR: u32 = 4;

/// Owns the tasks that send webhooks. They end when it is dropped.
pub(crate) struct Notifier {
    webhooks: Arc<Webhooks>,
    sender: Arc<Sender>,
    /// Held to start the courier, or to take its handle.
    courier: Mutex<CourierTask>,
    draining: CancellationToken,
    /// Canceled to end the tasks that follow jobs.
    stopped: CancellationToken,
    followers: TaskTracker,
}

enum CourierTask {
    /// There was no runtime yet.
    Waiting(Pin<Box<dyn Future<Output = ()> + Send>>),
    Running(JoinHandle<()>),
    Ended,
}

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
        let client = client.map_err(|error| ConfigError::RootCertificate(error.to_string()))?;
        let receivers = Receivers::new(ReceiverLimits {
            connections: webhooks.max_connections,
            each: webhooks.max_per_receiver,
            rate: webhooks.max_rate,
            lease: webhooks.client.timeout * LEASE_FACTOR,
        });
        let sender = Arc::new(Sender {
            webhooks: webhooks.clone(),
            client,
            receivers,
        });
        let draining = CancellationToken::new();
        let task = Box::pin(courier::run(sender.clone(), outbox, draining.clone()));
        let notifier = Self {
            webhooks,
            sender,
            courier: Mutex::new(CourierTask::Waiting(task)),
            draining,
            stopped: CancellationToken::new(),
            followers: TaskTracker::new(),
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
        let mut courier = self.courier.lock();
        if let CourierTask::Waiting(_) = &*courier
            && let Ok(runtime) = Handle::try_current()
            && let CourierTask::Waiting(task) = std::mem::replace(&mut *courier, CourierTask::Ended)
        {
            *courier = CourierTask::Running(runtime.spawn(task));
        }
    }

    /// Notifies the targets of a job that want it while the job runs. `changes` follows the job.
    pub(crate) fn follow<C>(&self, changes: impl Fn() -> C + Send + 'static)
    where
        C: Stream<Item = Snapshot> + Send + 'static,
    {
        self.start();
        let (sender, stopped) = (self.sender.clone(), self.stopped.clone());
        let followers = self.followers.clone();
        let tracker = self.followers.clone();
        let follow = async move {
            let first = live::next(pin!(changes())).await;
            let Some(targets) = first.and_then(|job| job.callbacks) else {
                return;
            };
            for (number, target) in (0..).zip(&*targets).filter(|(_, it)| live::is_live(it)) {
                let follow = live::follow(sender.clone(), changes(), target.clone(), number);
                let stopped = stopped.clone();
                tracker.spawn(async move { stopped.run_until_cancelled(follow).await });
            }
        };
        let stopped = self.stopped.clone();
        followers.spawn(async move { stopped.run_until_cancelled(follow).await });
    }

    /// Waits until what is due has been sent, at most until `deadline`. Nothing is sent afterwards.
    ///
    /// Deliveries that survive the process are left to the next one, but for those that are on
    /// their way.
    pub(crate) async fn drain(&self, deadline: Instant) {
        self.start();
        self.draining.cancel();
        let courier = std::mem::replace(&mut *self.courier.lock(), CourierTask::Ended);
        if let CourierTask::Running(mut courier) = courier {
            let ended = timeout_at(deadline, &mut courier).await;
            if ended.is_err() {
                tracing::warn!("ended webhooks that were not delivered in time");
            }
            courier.abort();
        }
        self.stopped.cancel();
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        if let CourierTask::Running(courier) = &*self.courier.lock() {
            courier.abort();
        }
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
