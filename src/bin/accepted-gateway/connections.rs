//! The connections of clients: how many there may be, and how they are closed.

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use hyper_util::server::graceful::GracefulConnection;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout_at},
};

/// The time that a new connection has for its first request, even if others wait for its slot.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// The interval at which idle connections are closed while new ones wait for a slot.
const CLOSE_INTERVAL: Duration = Duration::from_millis(250);

/// The connections of clients.
#[derive(Debug)]
pub(crate) struct Connections {
    slots: Arc<Semaphore>,
    /// Each connection has a receiver, so that the channel closes with the last one.
    closing: watch::Sender<Closing>,
    /// The time from which idle connections may be closed again.
    next_close: Instant,
}

/// The right to have one more connection, until it is dropped.
pub(crate) type ConnectionSlot = Option<OwnedSemaphorePermit>;

/// The connections to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// Those that wait for a request, unless they are new.
    Idle,
    All,
}

/// The state of a connection that its service and its stream know. Clones share it.
///
/// Only the connection's task uses it, so no order of memory accesses is needed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Activity(Arc<ActivityState>);

#[derive(Debug, Default)]
struct ActivityState {
    has_served: AtomicBool,
    open_responses: AtomicUsize,
    is_writing: AtomicBool,
}

/// A response that is being prepared or sent, until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenResponse(Activity);

impl Activity {
    /// Notes that a request has come. Its response holds the returned value.
    pub(crate) fn begin_request(&self) -> OpenResponse {
        self.0.has_served.store(true, Ordering::Relaxed);
        self.0.open_responses.fetch_add(1, Ordering::Relaxed);
        OpenResponse(self.clone())
    }

    /// Notes whether bytes wait for a client that does not read them.
    pub(crate) fn set_writing(&self, is_writing: bool) {
        self.0.is_writing.store(is_writing, Ordering::Relaxed);
    }

    fn has_served(&self) -> bool {
        self.0.has_served.load(Ordering::Relaxed)
    }

    /// Returns `true` if the connection waits for a request, or for the rest of its head.
    fn awaits_request(&self) -> bool {
        self.0.open_responses.load(Ordering::Relaxed) == 0
            && !self.0.is_writing.load(Ordering::Relaxed)
    }
}

impl Drop for OpenResponse {
    fn drop(&mut self) {
        self.0.0.open_responses.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            closing: watch::Sender::new(Closing::Idle),
            next_close: Instant::now(),
        }
    }

    /// Returns a slot. While all are taken, this closes the connections that wait for a request, so
    /// that idle clients keep no others out. Cancel safe.
    pub(crate) async fn slot(&mut self) -> ConnectionSlot {
        loop {
            let slot = self.slots.clone().acquire_owned();
            if let Ok(slot) = timeout_at(self.next_close, slot).await {
                // The semaphore is never closed.
                return slot.ok();
            }
            self.closing.send_replace(Closing::Idle);
            self.next_close = Instant::now() + CLOSE_INTERVAL;
        }
    }

    /// Serves a connection in the background.
    pub(crate) fn spawn<C>(&self, slot: ConnectionSlot, connection: C, activity: Activity)
    where
        C: GracefulConnection + Send + 'static,
        C::Error: fmt::Display + Send,
    {
        let closing = self.closing.subscribe();
        tokio::spawn(async move {
            if let Err(error) = serve(connection, closing, activity).await {
                tracing::debug!(%error, "connection failed");
            }
            drop(slot);
        });
    }

    /// Closes all connections after their current responses, and waits for them. A connection with
    /// only a part of a request closes at once.
    pub(crate) async fn shutdown(self) {
        self.closing.send_replace(Closing::All);
        self.closing.closed().await;
    }
}

/// Serves a connection until its end, or until it must close.
async fn serve<C: GracefulConnection>(
    connection: C,
    mut closing: watch::Receiver<Closing>,
    activity: Activity,
) -> Result<(), C::Error> {
    let opened = Instant::now();
    let mut connection = pin!(connection);
    loop {
        let asked = {
            let mut changed = pin!(closing.changed());
            poll_fn(|cx| {
                // First, so that a request which has arrived gets its response.
                if let Poll::Ready(served) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Err(served));
                }
                changed.as_mut().poll(cx).map(Ok)
            })
            .await
        };
        match asked {
            Err(served) => return served,
            // The process ends.
            Ok(Err(_)) => return connection.await,
            Ok(Ok(())) => {}
        }
        let closing = *closing.borrow_and_update();
        if closing == Closing::All
            || activity.has_served()
            || opened.elapsed() >= FIRST_REQUEST_GRACE
        {
            connection.as_mut().graceful_shutdown();
        }
        if closing == Closing::All {
            return finish(connection, &activity).await;
        }
    }
}

/// Serves a connection until it has sent its current response. hyper would wait for the rest of a
/// head.
async fn finish<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    activity: &Activity,
) -> Result<(), C::Error> {
    poll_fn(|cx| match connection.as_mut().poll(cx) {
        Poll::Pending if activity.awaits_request() => Poll::Ready(Ok(())),
        served => served,
    })
    .await
}
