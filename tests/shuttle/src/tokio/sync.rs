//! A model of `tokio::sync::Notify`, for `notify_waiters`.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use shuttle::sync::Mutex;

pub mod futures {
    pub use super::OwnedNotified;
}

#[derive(Debug, Default)]
pub struct Notify {
    state: Mutex<NotifyState>,
}

#[derive(Debug, Default)]
struct NotifyState {
    notifications: u64,
    wakers: Vec<Waker>,
}

/// Completes at the first notification after its creation, polled or not, as tokio documents it.
#[derive(Debug)]
pub struct Notified<'a> {
    notify: &'a Notify,
    seen: u64,
}

#[derive(Debug)]
pub struct OwnedNotified {
    notify: Arc<Notify>,
    seen: u64,
}

impl Notify {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn notified(&self) -> Notified<'_> {
        Notified {
            notify: self,
            seen: self.notifications(),
        }
    }

    pub fn notified_owned(self: Arc<Self>) -> OwnedNotified {
        OwnedNotified {
            seen: self.notifications(),
            notify: self,
        }
    }

    pub fn notify_waiters(&self) {
        let wakers = {
            let mut state = self.state.lock().expect("no panic under the lock");
            state.notifications += 1;
            std::mem::take(&mut state.wakers)
        };
        for waker in wakers {
            waker.wake();
        }
    }

    fn notifications(&self) -> u64 {
        self.state
            .lock()
            .expect("no panic under the lock")
            .notifications
    }

    fn poll(&self, seen: u64, waker: Option<&Waker>) -> Poll<()> {
        let mut state = self.state.lock().expect("no panic under the lock");
        if state.notifications > seen {
            return Poll::Ready(());
        }
        state.wakers.extend(waker.cloned());
        Poll::Pending
    }
}

impl Notified<'_> {
    pub fn enable(self: Pin<&mut Self>) -> bool {
        self.notify.poll(self.seen, None).is_ready()
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.notify.poll(self.seen, Some(cx.waker()))
    }
}

impl Future for OwnedNotified {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.notify.poll(self.seen, Some(cx.waker()))
    }
}
