//! The connections of clients: how many there may be, and how they are closed.

use std::{fmt, mem, sync::Arc};

use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

/// The connections of clients.
#[derive(Debug)]
pub(crate) struct Connections {
    slots: Arc<Semaphore>,
    /// The connections that may wait for further requests.
    open: GracefulShutdown,
    /// Wait for the connections that close after their current response.
    closing: JoinSet<()>,
}

/// The right to have one more connection, until it is dropped.
pub(crate) type ConnectionSlot = Option<OwnedSemaphorePermit>;

impl Connections {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            open: GracefulShutdown::new(),
            closing: JoinSet::new(),
        }
    }

    /// Returns a slot. If all are taken, this closes the connections that wait for a request, so
    /// that idle clients keep no others out. Cancel safe.
    pub(crate) async fn slot(&mut self) -> ConnectionSlot {
        if self.slots.available_permits() == 0 {
            self.close_idle();
        }
        let slots = self.slots.clone();
        // The semaphore is never closed.
        slots.acquire_owned().await.ok()
    }

    /// Serves a connection in the background.
    pub(crate) fn spawn<C>(&self, slot: ConnectionSlot, connection: C)
    where
        C: GracefulConnection + Send + 'static,
        C::Error: fmt::Display,
    {
        let connection = self.open.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection failed");
            }
            drop(slot);
        });
    }

    /// Closes all connections after their current responses, and waits for them.
    pub(crate) async fn shutdown(mut self) {
        self.open.shutdown().await;
        while self.closing.join_next().await.is_some() {}
    }

    /// Closes each connection as soon as it waits for a request.
    fn close_idle(&mut self) {
        while self.closing.try_join_next().is_some() {}
        if self.open.count() > 0 {
            self.closing.spawn(mem::take(&mut self.open).shutdown());
        }
    }
}
