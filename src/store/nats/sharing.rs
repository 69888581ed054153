//! What registries of all processes tell one another of how long jobs took: by the bucket, where the last that
//! each has told is kept as long as a job.
//!
//! None of it matters to any job: what fails is tried again, or left.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::consumer::{
    DeliverPolicy,
    push::{Ordered, OrderedConfig},
};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::{
    select,
    sync::Notify,
    time::{interval, sleep},
};

use super::{
    NatsError,
    envelope::{open, seal},
    shared::Shared,
};
use crate::store::{Experience, Lessons};

/// How often it is looked whether there is anything to tell.
const EACH: Duration = Duration::from_secs(3);

/// How long to wait before a watch that broke is made again.
const PAUSE: Duration = Duration::from_secs(5);

/// The registries of this process that tell and hear.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Held for one push or copy.
    registries: Mutex<Vec<Experience>>,
    joined: Notify,
}

impl Sharing {
    pub(super) fn join(&self, experience: Experience) {
        self.registries.lock().push(experience);
        // Kept where nobody waits yet.
        self.joined.notify_one();
    }

    fn registries(&self) -> Vec<Experience> {
        let mut registries = self.registries.lock();
        registries.retain(|registry| !registry.is_over());
        registries.clone()
    }
}

/// Tells and hears, as long as the store is there.
pub(super) async fn share(shared: Arc<Shared>) {
    loop {
        shared.sharing.joined.notified().await;
        // For who has joined everything is told again that is there; the others know what they have heard.
        let told = loop {
            match watch(&shared).await {
                Ok(told) => break told,
                Err(error) => {
                    tracing::debug!(%error, "what others tell of their jobs is not heard yet");
                    sleep(PAUSE).await;
                }
            }
        };
        select! {
            () = hear(&shared, told) => {
                sleep(PAUSE).await;
                shared.sharing.joined.notify_one();
            }
            never = tell(&shared) => match never {},
            // Left for the beginning of this loop.
            () = shared.sharing.joined.notified() => shared.sharing.joined.notify_one(),
        }
    }
}

/// Hears what the others tell, until the watch breaks.
async fn hear(shared: &Shared, mut messages: Ordered) {
    while let Some(Ok(message)) = messages.next().await {
        match open::<Lessons>(&message.subject, message.payload.clone()) {
            Ok((told, _)) => {
                let registries = shared.sharing.registries();
                registries.iter().for_each(|registry| registry.hear(&told));
            }
            Err(error) => {
                tracing::debug!(%error, "what another tells of its jobs is not understood")
            }
        }
    }
}

/// Tells the others, every few seconds, what has been seen here.
async fn tell(shared: &Shared) -> std::convert::Infallible {
    let mut ticks = interval(EACH);
    loop {
        ticks.tick().await;
        for told in shared
            .sharing
            .registries()
            .iter()
            .filter_map(Experience::tell)
        {
            let subject = shared.names.took(told.teller());
            let payload = seal(&told, b"");
            // What is lost is told with the next.
            if let Err(refused) = shared.write(&subject, None, &payload).await {
                tracing::debug!(?refused, "how long jobs took is not told");
            }
        }
    }
}

/// A consumer of the last that each has told, and of all that is told from now on.
async fn watch(shared: &Shared) -> Result<Ordered, NatsError> {
    let config = OrderedConfig {
        deliver_subject: shared.context.client().new_inbox(),
        filter_subject: shared.names.all_took(),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..OrderedConfig::default()
    };
    let consumer = shared.streams.jobs.create_consumer(config).await;
    let consumer = consumer.map_err(NatsError::unavailable)?;
    consumer.messages().await.map_err(NatsError::unavailable)
}
