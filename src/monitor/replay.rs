//! Cuts replays that make no progress.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use crate::{limit::MAX_TIMEOUT, protocol::BoxError, store::ResultBody};

/// Makes a body drop its bytes if no frame of it is read for `timeout`, although there is one.
///
/// A server does not poll a body while its client reads nothing. So a task drops the bytes, and the
/// next frame is an error.
pub(super) fn watched(body: ResultBody, timeout: Duration) -> ResultBody {
    let (false, Ok(runtime)) = (body.is_empty(), Handle::try_current()) else {
        return body;
    };
    let state = Arc::new(Mutex::new(ReplayState {
        body: Some(body),
        read_at: Instant::now(),
        is_pending: false,
    }));
    let watch = watch(state.clone(), timeout.min(MAX_TIMEOUT));
    ResultBody::boxed(Replay {
        watch: runtime.spawn(watch).abort_handle(),
        state,
    })
}

/// A body that is watched.
struct Replay {
    /// Locked for one poll of the body, or to drop it. The task and the reader only meet here.
    state: Arc<Mutex<ReplayState>>,
    /// Ends the task with this body.
    watch: AbortHandle,
}

struct ReplayState {
    /// Absent once the replay has been cut.
    body: Option<ResultBody>,
    /// The time of the last poll.
    read_at: Instant,
    /// Set while the server waits for a frame of a response that is being produced.
    is_pending: bool,
}

/// Cuts a replay when it was not read for `timeout`.
async fn watch(state: Arc<Mutex<ReplayState>>, timeout: Duration) {
    loop {
        let cut_at = {
            let mut state = state.lock();
            if state.is_pending {
                state.read_at = Instant::now();
            }
            state.read_at + timeout
        };
        sleep_until(cut_at).await;
        let cut = {
            let mut state = state.lock();
            let is_due = !state.is_pending && state.read_at + timeout <= Instant::now();
            state.body.take_if(|_| is_due)
        };
        if cut.is_some() {
            tracing::debug!("cut a replay whose client reads nothing");
            return;
        }
    }
}

impl Body for Replay {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let state = &mut *self.state.lock();
        state.read_at = Instant::now();
        match &mut state.body {
            Some(body) => {
                let frame = Pin::new(body).poll_frame(cx);
                state.is_pending = frame.is_pending();
                frame
            }
            None => Poll::Ready(Some(Err("the client read nothing for too long".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.lock();
        state.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.state.lock();
        state.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.watch.abort();
        // The task is dropped only when its runtime gets to it.
        self.state.lock().body = None;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};

    use tokio::time::{advance, sleep};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    async fn next(body: &mut ResultBody) -> Option<Result<usize, String>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        let frame = frame.map_err(|error| error.to_string());
        Some(frame.map(|frame| frame.data_ref().map_or(0, Bytes::len)))
    }

    #[tokio::test(start_paused = true)]
    async fn replay_without_progress_is_cut() {
        let bytes = Bytes::from(vec![7; 3 * 65_536]);
        let owner = bytes.clone();
        let mut body = watched(ResultBody::shared(bytes, None), TIMEOUT);
        let mut frames = Vec::new();
        assert_eq!(body.len(), Some(3 * 65_536));
        for _ in 0..2 {
            sleep(TIMEOUT - Duration::from_secs(1)).await;
            let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            // A server may hold a frame for as long as its client reads nothing.
            frames.push(frame.expect("a frame").expect("a frame"));
        }
        assert!(!owner.is_unique());
        advance(TIMEOUT).await;
        tokio::task::yield_now().await;
        assert!(owner.is_unique(), "the bytes are dropped");
        let error = next(&mut body).await.expect("a frame");
        assert!(error.expect_err("cut").contains("too long"));
    }

    #[tokio::test(start_paused = true)]
    async fn replay_that_waits_for_its_source_is_not_cut() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut body = watched(ResultBody::streamed(SlowBody(receiver)), TIMEOUT);
        let frame = tokio::spawn(async move { (next(&mut body).await, body) });
        sleep(TIMEOUT * 3).await;
        sender.send(Bytes::from_static(b"late")).expect("a reader");
        let (frame, mut body) = frame.await.expect("no panic");
        assert_eq!(frame, Some(Ok(4)));
        sleep(TIMEOUT * 2).await;
        assert!(next(&mut body).await.expect("a frame").is_err());
    }

    /// A body of one frame that comes late.
    struct SlowBody(tokio::sync::oneshot::Receiver<Bytes>);

    impl Body for SlowBody {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            let frame = std::task::ready!(Pin::new(&mut self.0).poll(cx));
            Poll::Ready(frame.ok().map(|data| Ok(Frame::data(data))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn empty_replay_has_no_task() {
        let _body = watched(ResultBody::default(), TIMEOUT);
        let tasks = Handle::current().metrics();
        assert_eq!(tasks.num_alive_tasks(), 0);
    }
}
