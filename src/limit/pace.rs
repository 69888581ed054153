//! Keeps a call from producing far ahead of the readers of its output.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
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
    /// The offset of the fastest reader.
    furthest: u64,
    call: Option<Waker>,
}

impl Pace {
    /// Records that a reader has got the output up to `offset`.
    pub(crate) fn advance(&self, offset: u64) {
        let call = {
            let mut state = self.state.lock();
            if offset <= state.furthest {
                return;
            }
            state.furthest = offset;
            state.call.take()
        };
        if let Some(call) = call {
            call.wake();
        }
    }

    /// Returns the offset of the fastest reader, and wakes the call when it changes.
    fn furthest(&self, cx: &Context<'_>) -> u64 {
        let mut state = self.state.lock();
        state.call = Some(cx.waker().clone());
        state.furthest
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
            passed: None,
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
    /// Runs while the call waits, with the offset that it waits at.
    stall: Option<(u64, Pin<Box<Sleep>>)>,
    /// The offset at which the readers have stalled. The call waits again once one is beyond it.
    passed: Option<u64>,
}

impl PaceLimit {
    /// Waits until the call may read beyond `offset`.
    pub(crate) fn poll_beyond(&mut self, offset: u64, cx: &mut Context<'_>) -> Poll<()> {
        let furthest = self.pace.furthest(cx);
        if offset < furthest.saturating_add(self.max_ahead) || self.passed == Some(furthest) {
            self.stall = None;
            return Poll::Ready(());
        }
        let stall = match &mut self.stall {
            Some((at, stall)) if *at == furthest => stall,
            stall => {
                let timeout = Box::pin(sleep(STALL_TIMEOUT));
                &mut stall.insert((furthest, timeout)).1
            }
        };
        if stall.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.passed = Some(furthest);
        self.stall = None;
        Poll::Ready(())
    }
}

impl Drop for PaceLimit {
    fn drop(&mut self) {
        self.paces.0.remove(&self.id);
    }
}
