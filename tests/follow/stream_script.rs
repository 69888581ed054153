//! Replies of a scripted server that streams the output of a job.

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use tower::{Layer, ServiceExt};
use tower_accepted::follow::{FollowAcceptedLayer, FollowBody, FollowError, Stopped};

use crate::support::*;

pub(crate) const ONE: (&str, &str) = ("etag", "\"tower-accepted:x.1\"");
pub(crate) const TWO: (&str, &str) = ("etag", "\"tower-accepted:x.2\"");
pub(crate) const TEXT: (&str, &str) = ("content-type", "text/plain");

pub(crate) fn streaming() -> FollowAcceptedLayer {
    FollowAcceptedLayer::new().streaming(true)
}

pub(crate) fn accepted() -> Reply {
    reply(202)
        .with("operation-location", "/jobs/1")
        .with("link", "</jobs/1>; rel=\"monitor\"")
        .with("retry-after", "100")
}

pub(crate) fn running() -> Reply {
    document(json!({ "status": "running" }))
}

pub(crate) fn succeeded(length: u64) -> Reply {
    let response = json!({ "status": 200, "contentLength": length });
    document(json!({
        "status": "succeeded",
        "resourceLocation": "/jobs/1/result",
        "response": response,
    }))
}

pub(crate) fn failed(partial: u64) -> Reply {
    document(json!({
        "status": "failed",
        "partial": { "status": 200, "contentLength": partial },
        "error": { "code": "lost", "message": "The process died." },
    }))
}

/// A part of the output, of this run.
pub(crate) fn part((name, etag): (&'static str, &str), body: Content) -> Reply {
    reply(200)
        .with("asyncresult", "200")
        .with(name, etag)
        .with(TEXT.0, TEXT.1)
        .stream(body)
}

pub(crate) fn frames(
    text: &'static str,
    last: impl IntoIterator<Item = Result<Frame<Bytes>, Broken>>,
) -> Content {
    let text = Bytes::from_static(text.as_bytes());
    let data = (!text.is_empty()).then(|| Ok(Frame::data(text)));
    let frames: Vec<_> = data.into_iter().chain(last).collect();
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// A body that fails after `text`.
pub(crate) fn cut(text: &'static str) -> Content {
    frames(text, [Err(Broken("cut off"))])
}

/// A body that ends after `text`.
pub(crate) fn ended(text: &'static str) -> Content {
    frames(text, [])
}

pub(crate) async fn call(
    layer: &FollowAcceptedLayer,
    server: Server,
) -> Response<FollowBody<Content>> {
    let client = layer.layer(server);
    let response = client.oneshot(request("POST", REPORTS)).await;
    response.expect("a response")
}

/// Sends a request through the layer and reads the body.
pub(crate) async fn stream_with(
    layer: &FollowAcceptedLayer,
    server: Server,
) -> (String, Option<FollowError<Broken>>) {
    read(call(layer, server).await.into_body()).await
}

/// Returns the error of a body that was resumed.
pub(crate) fn stopped(error: Option<FollowError<Broken>>) -> Box<Stopped> {
    match error {
        Some(FollowError::Stopped(stopped)) => stopped,
        other => panic!("{other:?}"),
    }
}
