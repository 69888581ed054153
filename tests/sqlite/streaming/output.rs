//! Services whose output a test produces, and clients that read it frame by frame.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{Duration, timeout},
};
use tower::ServiceExt;

use crate::{
    site::{boxed, until},
    suites::routes::{Inner, Outer},
    support::{Body, Failed, get, with},
};

/// The time after which a reader that waits for more fails.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The time that [`Streamed::is_silent`] waits for a frame.
const SILENCE: Duration = Duration::from_millis(100);

type Frames = mpsc::UnboundedReceiver<Result<Frame<Bytes>, Failed>>;

/// Produces the output of one job. Dropping it completes the output.
pub(crate) struct Producer(mpsc::UnboundedSender<Result<Frame<Bytes>, Failed>>);

impl Producer {
    pub(crate) fn send(&self, data: impl Into<Bytes>) {
        let sent = self.0.send(Ok(Frame::data(data.into())));
        sent.expect("the call runs");
    }

    pub(crate) fn end_with(self, trailers: HeaderMap) {
        let sent = self.0.send(Ok(Frame::trailers(trailers)));
        sent.expect("the call runs");
    }

    pub(crate) fn fail(self) {
        self.0.send(Err(Failed)).expect("the call runs");
    }

    /// Waits until the call ends.
    pub(crate) async fn is_canceled(&self) {
        timeout(TIMEOUT, self.0.closed())
            .await
            .expect("the call ends");
    }
}

/// Returns a producer, and a service that answers one call with its output.
pub(crate) fn produced() -> (Producer, Inner) {
    let (sender, frames) = mpsc::unbounded_channel();
    let frames: Arc<Mutex<Option<Frames>>> = Arc::new(Mutex::new(Some(frames)));
    let service = boxed(move |_| {
        let frames = frames.lock().take();
        async move {
            let mut frames = frames.expect("one call");
            let body = StreamBody::new(futures_util::stream::poll_fn(move |cx| {
                frames.poll_recv(cx)
            }));
            let response = Response::builder().header("content-type", "text/plain");
            Ok(response.body(Body::new(body)).expect("a response"))
        }
    });
    (Producer(sender), service)
}

/// Returns bytes that differ from place to place.
pub(crate) fn pattern(from: u64, length: usize) -> Bytes {
    let bytes = (from..).take(length);
    bytes.map(|index| (index % 251) as u8).collect()
}

/// An output that is being read.
pub(crate) struct Streamed {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Body,
}

/// Begins to read the output of a job.
pub(crate) async fn open(site: &Outer, location: &str, query: &str) -> Streamed {
    open_as(site, location, query, &[]).await
}

/// Begins to read the output of a job, with fields in the request.
pub(crate) async fn open_as(
    site: &Outer,
    location: &str,
    query: &str,
    fields: &[(&'static str, &str)],
) -> Streamed {
    let request = with(get(&format!("{location}/stream{query}")), fields);
    let response = site.clone().oneshot(request).await.expect("a response");
    let (head, body) = response.into_parts();
    Streamed {
        status: head.status,
        headers: head.headers,
        body,
    }
}

impl Streamed {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).expect("the field");
        value.to_str().expect("text")
    }

    /// Reads the next frame. Returns `Err` if the output broke off.
    pub(crate) async fn frame(&mut self) -> Result<Option<Bytes>, ()> {
        let frame = timeout(TIMEOUT, self.body.frame()).await;
        match frame.expect("a frame, or the end") {
            None => Ok(None),
            Some(Err(_)) => Err(()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Ok(Some(data)),
                Err(_) => Ok(None),
            },
        }
    }

    /// Reads at least so many bytes.
    pub(crate) async fn next(&mut self, length: usize) -> Bytes {
        let mut all = BytesMut::new();
        while all.len() < length {
            let data = self.frame().await.expect("no break");
            all.extend_from_slice(&data.expect("more"));
        }
        all.freeze()
    }

    /// Reads to the end. Returns the data, and whether it broke off.
    pub(crate) async fn rest(mut self) -> (Bytes, bool) {
        let mut all = BytesMut::new();
        loop {
            match self.frame().await {
                Ok(Some(data)) => all.extend_from_slice(&data),
                Ok(None) => return (all.freeze(), false),
                Err(()) => return (all.freeze(), true),
            }
        }
    }

    /// Reads to the end of the output, and returns its trailers.
    pub(crate) async fn trailers(self) -> Option<HeaderMap> {
        let body = timeout(TIMEOUT, self.body.collect()).await;
        let body = body.expect("the end").expect("no break");
        body.trailers().cloned()
    }

    pub(crate) async fn is_silent(&mut self) -> bool {
        timeout(SILENCE, self.body.frame()).await.is_err()
    }
}

/// Waits until a reader at this site finds so many bytes.
pub(crate) async fn wait_for_bytes(site: &Outer, location: &str, length: u64) {
    until(async || {
        let streamed = open(site, location, &format!("?offset={length}")).await;
        streamed.status == StatusCode::OK
    })
    .await;
}
