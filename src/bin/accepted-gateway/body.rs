//! The body of a client's request, which fails if the client stops sending.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;
use tower::BoxError;

/// The body of a client's request.
///
/// A read fails if it makes no progress for a time. Otherwise clients that never send all of a
/// request would keep its connection and its call for ever.
pub(crate) struct ClientBody {
    body: Incoming,
    upload: Upload,
    max_stall: Duration,
    /// Runs while a read is pending.
    stall: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Canceled when a shutdown begins.
    draining: CancellationToken,
}

/// The maximum stall during a shutdown.
const MAX_DRAINING_STALL: Duration = Duration::from_secs(1);

/// The state of reading a request's body, as a request extension. Clones share it.
///
/// The task that reads the body passes the request on, so no order of memory accesses is needed.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    is_complete: Arc<AtomicBool>,
}

impl Upload {
    /// Returns `true` if the whole body has been read.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Relaxed)
    }
}

/// The error of a body that made no progress.
#[derive(Debug)]
pub(crate) struct StalledBody;

impl fmt::Display for StalledBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client stopped sending the request body")
    }
}

impl Error for StalledBody {}

impl StalledBody {
    /// Returns `true` if this is the error or one of its sources.
    pub(crate) fn is_cause_of(error: &(dyn Error + 'static)) -> bool {
        error.is::<Self>() || error.source().is_some_and(Self::is_cause_of)
    }
}

impl ClientBody {
    /// Limits the stall of a request's body, more so once `draining` is canceled. Adds its
    /// [`Upload`] to the request.
    pub(crate) fn wrap(
        request: Request<Incoming>,
        max_stall: Duration,
        draining: &CancellationToken,
    ) -> Request<Self> {
        let upload = Upload {
            is_complete: Arc::new(AtomicBool::new(request.body().is_end_stream())),
        };
        let mut request = request.map(|body| Self {
            body,
            upload: upload.clone(),
            max_stall,
            stall: None,
            draining: draining.clone(),
        });
        request.extensions_mut().insert(upload);
        request
    }
}

/// Waits until a read has stalled for too long.
async fn stall(max: Duration, draining: CancellationToken) {
    let while_draining = async {
        draining.cancelled().await;
        sleep(MAX_DRAINING_STALL).await;
    };
    select! {
        () = sleep(max) => {}
        () = while_draining => {}
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            let (max_stall, draining) = (this.max_stall, &this.draining);
            let stall = this
                .stall
                .get_or_insert_with(|| Box::pin(stall(max_stall, draining.clone())));
            ready!(stall.as_mut().poll(cx));
            return Poll::Ready(Some(Err(StalledBody.into())));
        };
        this.stall = None;
        if frame.is_none() || this.body.is_end_stream() {
            this.upload.is_complete.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
