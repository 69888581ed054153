//! The signal that stops every call of a registry, and the deadline of one call.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Why a call must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// Its deadline has passed.
    Deadline,
    /// The process shuts down.
    Shutdown,
}

/// Stops every call of a registry, once.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopSignal {
    stopped: CancellationToken,
}

impl StopSignal {
    /// Stops all calls, including those that start later.
    pub(crate) fn stop(&self) {
        self.stopped.cancel();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.is_cancelled()
    }

    /// Completes when the calls must stop.
    pub(crate) async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// Creates a future that completes when one call must stop.
    pub(crate) fn watch(&self, deadline: Option<Instant>) -> StopWatch {
        StopWatch {
            stopped: self.stopped.clone().cancelled_owned(),
            deadline: deadline.map(sleep_until),
        }
    }
}

/// Completes when one call must stop. Its timer is on the runtime that polls it first.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub(crate) struct StopWatch {
    #[pin]
    stopped: WaitForCancellationFutureOwned,
    #[pin]
    deadline: Option<Sleep>,
}

impl Future for StopWatch {
    type Output = StopReason;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let this = self.project();
        if this.stopped.poll(cx).is_ready() {
            return Poll::Ready(StopReason::Shutdown);
        }
        match this.deadline.as_pin_mut() {
            Some(deadline) => deadline.poll(cx).map(|()| StopReason::Deadline),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn deadline_stops_one_call() {
        let (signal, now) = (StopSignal::default(), Instant::now());
        let late = signal.watch(Some(now + Duration::from_secs(9)));
        let early = signal.watch(Some(now + Duration::from_secs(2)));
        assert_eq!(early.await, StopReason::Deadline);
        assert_eq!(now.elapsed().as_secs(), 2);
        assert_eq!(late.await, StopReason::Deadline);
        assert_eq!(now.elapsed().as_secs(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn stop_reaches_earlier_and_later_calls() {
        let signal = StopSignal::default();
        let deadline = Instant::now() + Duration::from_secs(1);
        let waiting = [None, Some(deadline)].map(|at| tokio::spawn(signal.watch(at)));
        tokio::task::yield_now().await;
        signal.stop();
        for watch in waiting {
            assert_eq!(watch.await.expect("no panic"), StopReason::Shutdown);
        }
        assert_eq!(signal.watch(None).await, StopReason::Shutdown);
    }
}
