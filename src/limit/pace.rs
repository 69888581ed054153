//! Keeps a call from producing far ahead of the readers of its output.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::time::{Sleep, sleep};

use crate::job::JobId;

/// The time after which a call no longer waits for readers that make no progress.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The paces of the calls that run here and wait for their readers.
///
/// A guard of the map is held for one look-up, insert or removal, and while no other lock is.
#[derive(Debug, Default)]
pub(crate) struct Paces(DashMap<JobId, Arc<Pace>>);

/// The progress of the fastest reader of an output.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Held for one step. The waker is registered in the step that reads the offset, so no advance
    /// is missed.
    state: Mutex<PaceState>,
}

#[derive(Debug, Default)]
struct PaceState {
    /// The offset of the fastest reader that makes progress.
    furthest: u64,
    /// The highest offset that a reader has reached since the call began to wait, or 0.
    recent: u64,
    call: Option<Waker>,
}

impl Pace {
    /// Records that a reader has got the output up to `offset`.
    pub(crate) fn advance(&self, offset: u64) {
        let call = {
            let mut state = self.state.lock();
            state.recent = state.recent.max(offset);
            state.furthest = state.furthest.max(offset);
            state.call.take()
        };
        if let Some(call) = call {
            call.wake();
        }
    }
}

impl Paces {
    /// Begins to limit how far a call reads ahead of its readers, in bytes.
    pub(crate) fn limit(self: &Arc<Self>, id: JobId, max_ahead: u64) -> PaceLimit {
        let pace = Arc::<Pace>::default();
        self.0.insert(id, pace.clone());
        PaceLimit {
            pace,
            paces: self.clone(),
            id,
            // Without a byte ahead, no reader would get the first one.
            max_ahead: max_ahead.max(1),
            stall: None,
            is_free: false,
        }
    }

    /// Returns the pace of a call that waits for its readers.
    pub(crate) fn get(&self, id: JobId) -> Option<Arc<Pace>> {
        self.0.get(&id).map(|pace| pace.clone())
    }
}

/// The call's end of a pace.
pub(crate) struct PaceLimit {
    pace: Arc<Pace>,
    paces: Arc<Paces>,
    id: JobId,
    max_ahead: u64,
    /// Runs while the call waits.
    stall: Option<Pin<Box<Sleep>>>,
    /// Set if all readers have stalled. The call waits again once one of them goes on.
    is_free: bool,
}

impl PaceLimit {
    /// Waits until the call may read beyond `offset`.
    pub(crate) fn poll_beyond(&mut self, offset: u64, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            {
                let mut state = self.pace.state.lock();
                if self.is_free && state.recent > 0 {
                    self.is_free = false;
                    state.furthest = state.recent;
                }
                let is_near = offset < state.furthest.saturating_add(self.max_ahead);
                if self.is_free || is_near {
                    self.stall = None;
                    return Poll::Ready(());
                }
                if self.stall.is_none() {
                    state.recent = 0;
                }
                state.call = Some(cx.waker().clone());
            }
            let timeout = || Box::pin(sleep(STALL_TIMEOUT));
            ready!(self.stall.get_or_insert_with(timeout).as_mut().poll(cx));
            self.stall = None;
            let mut state = self.pace.state.lock();
            // The fastest reader may have left, and a slower one may go on.
            state.furthest = std::mem::take(&mut state.recent);
            self.is_free = state.furthest == 0;
        }
    }
}

impl Drop for PaceLimit {
    fn drop(&mut self) {
        self.paces.0.remove(&self.id);
    }
}
