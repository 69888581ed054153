//! Services whose responses a test produces frame by frame, and clients that read them so.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tower::{BoxError, Service, ServiceExt};
use tower_accepted::RequestBody;

use crate::support::*;

type Frames = mpsc::UnboundedSender<Result<Frame<Bytes>, Failed>>;

/// Produces the output of a job, frame by frame. Dropping it completes the output.
pub(crate) struct Producer(Option<Frames>);

impl Producer {
    pub(crate) fn send(&self, data: impl Into<Bytes>) {
        let frames = self.0.as_ref().unwrap();
        frames.send(Ok(Frame::data(data.into()))).unwrap();
    }

    pub(crate) fn end_with(mut self, trailers: HeaderMap) {
        let frames = self.0.take().unwrap();
        frames.send(Ok(Frame::trailers(trailers))).unwrap();
    }

    pub(crate) fn fail(mut self) {
        self.0.take().unwrap().send(Err(Failed)).unwrap();
    }
}

/// Creates a response whose body comes from a producer.
pub(crate) fn produced(response: http::response::Builder) -> (Producer, Response<Body>) {
    let (frames, mut receiver) = mpsc::unbounded_channel();
    let frames = Producer(Some(frames));
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let body = Body::new(StreamBody::new(stream));
    (frames, response.body(body).unwrap())
}

/// A service that answers each request with the next response that a test gives it.
#[derive(Clone, Default)]
pub(crate) struct Script(Arc<Mutex<Vec<Response<Body>>>>);

impl Script {
    pub(crate) fn respond(&self, response: http::response::Builder) -> Producer {
        let (producer, response) = produced(response);
        self.0.lock().insert(0, response);
        producer
    }

    pub(crate) fn service(
        &self,
    ) -> impl Service<
        Request<RequestBody<Body>>,
        Response = Response<Body>,
        Error = Failed,
        Future: Send,
    > + Clone
    + Send
    + 'static {
        let responses = self.0.clone();
        inner(move |_| {
            let responses = responses.clone();
            async move {
                loop {
                    let next = responses.lock().pop();
                    if let Some(response) = next {
                        return Ok(response);
                    }
                    sleep(Duration::from_secs(1)).await;
                }
            }
        })
    }
}

pub(crate) fn text() -> http::response::Builder {
    Response::builder().header("content-type", "text/plain")
}

pub(crate) fn events() -> http::response::Builder {
    Response::builder().header("content-type", "text/event-stream")
}

/// A response whose body has not been read.
pub(crate) struct Streamed {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>,
}

pub(crate) async fn open<S, R>(service: &S, request: Request<Body>) -> Streamed
where
    S: Service<Request<Body>, Response = Response<R>, Error = Failed> + Clone,
    R: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    let response = service.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    Streamed {
        status: head.status,
        headers: head.headers,
        body: body.boxed_unsync(),
    }
}

impl Streamed {
    /// Reads so many bytes, frame by frame.
    pub(crate) async fn next(&mut self, length: usize) -> Bytes {
        let mut all = BytesMut::new();
        while all.len() < length {
            let frame = self.body.frame().await.expect("more").expect("no error");
            all.extend_from_slice(&frame.into_data().expect("data"));
        }
        all.freeze()
    }

    /// Reads to the end. Returns the data, and whether it broke off.
    pub(crate) async fn rest(mut self) -> (Bytes, bool) {
        let mut all = BytesMut::new();
        while let Some(frame) = self.body.frame().await {
            match frame {
                Ok(frame) => all.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
                Err(_) => return (all.freeze(), true),
            }
        }
        (all.freeze(), false)
    }

    pub(crate) async fn is_pending(&mut self) -> bool {
        let next = self.body.frame();
        timeout(Duration::from_millis(10), next).await.is_err()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub(crate) fn stream_path(accepted: &Answer) -> String {
    format!("{}/stream", accepted.location())
}
