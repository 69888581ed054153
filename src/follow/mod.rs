//! The client's half: a layer that follows a 202 (Accepted) to the response of its job.
//!
//! [`FollowAcceptedLayer`] wraps any HTTP client that is a tower service: hyper-util's, reqwest's,
//! or in a test the server itself. If a response is a 202 that names a status monitor, the layer
//! polls the monitor until the job ends. It returns the response of the job, as if the call had
//! been synchronous. It returns every other response unchanged.
//!
//! This module requires the feature `follow`.
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//!
//! use bytes::Bytes;
//! use http::{Request, Response, StatusCode};
//! use http_body_util::{BodyExt, Full};
//! use tower::{BoxError, ServiceBuilder, ServiceExt};
//! use tower_accepted::{
//!     AcceptedLayer, RequestBody,
//!     follow::{FollowAcceptedLayer, FollowError},
//! };
//!
//! // A slow service.
//! async fn render(
//!     _: Request<RequestBody<Full<Bytes>>>,
//! ) -> Result<Response<Full<Bytes>>, Infallible> {
//!     tokio::time::sleep(Duration::from_secs(20)).await;
//!     let mut response = Response::new("the report".into());
//!     *response.status_mut() = StatusCode::CREATED;
//!     Ok(response)
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! // A server that answers with a 202. Here it takes the place of an HTTP client.
//! let server = ServiceBuilder::new().layer(AcceptedLayer::new()).service_fn(render);
//!
//! // The caller sees only the final response.
//! let client = ServiceBuilder::new().layer(FollowAcceptedLayer::new()).service(server);
//! let request = Request::post("http://example.com/reports").body("all of March".into())?;
//! let response = client.oneshot(request).await?;
//! assert_eq!(response.status(), StatusCode::CREATED);
//! let body = response.into_body().collect().await.map_err(FollowError::into_boxed)?;
//! assert_eq!(body.to_bytes(), "the report");
//! # Ok(())
//! # }
//! ```
//!
//! hyper-util's client is such a service. reqwest has its own request type, which takes an adapter:
//!
//! ```no_run
//! use http::{Request, Response};
//! use reqwest::{Body, Client, redirect::Policy};
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_accepted::follow::FollowAcceptedLayer;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // The layer follows redirects itself, to allowed origins only.
//! let client = Client::builder().redirect(Policy::none()).build()?;
//! let client = FollowAcceptedLayer::new().layer(service_fn(move |request: Request<Body>| {
//!     let client = client.clone();
//!     async move {
//!         let response = client.execute(request.try_into()?).await?;
//!         Ok::<_, reqwest::Error>(Response::<Body>::from(response))
//!     }
//! }));
//! let request = Request::post("http://example.com/reports").body(Body::from("all of March"))?;
//! let response = client.oneshot(request).await?;
//! # drop(response);
//! # Ok(())
//! # }
//! ```
//!
//! # Which responses are followed
//!
//! A 202 names its monitor in one of these fields. The layer uses the first one whose origin is
//! [allowed](#allowed-origins):
//!
//! | field | used by |
//! |---|---|
//! | `Operation-Location`, `Azure-AsyncOperation` | Azure's guidelines, this crate |
//! | `Link` with `rel="monitor"` | this crate |
//! | `Content-Location`, unless it is the URI of the request itself | FHIR |
//! | `Location` | OData, Azure's resource manager, and any 202 that creates a resource |
//!
//! If only `Location` names a resource, it may not be a monitor. The layer polls it and follows the
//! 202 if the response is one of these:
//!
//! - a 202, or a 303 with a `Location`
//! - a JSON object whose `status` is a known state of Azure's guidelines or of this crate
//! - a response with `AsyncResult`, or of type `application/http`
//!
//! Otherwise it returns the 202. The same holds for a 202 that names no monitor and for a 202 to
//! `HEAD`. The extension [`NotFollowed`] has the reason, except after `HEAD`. If each `Location` is
//! known to be a monitor, set
//! [`location_is_monitor`](FollowAcceptedLayer::location_is_monitor).
//!
//! The layer follows 202s only. Some of Azure's services answer a `PUT` with a 200 or 201 and an
//! `Operation-Location`; the layer returns these unchanged.
//!
//! # How responses are interpreted
//!
//! | server | pending | ended |
//! |---|---|---|
//! | this crate by default, Azure | 200 and a document with any other `status` | 200 and a document with the `status` `succeeded`, `failed` or `canceled`, in any case |
//! | OData, FHIR, Azure's resource manager | 202 | any other response, which is the result |
//! | servers that redirect | 202 | 303 to the result |
//!
//! If a document says `succeeded`, the result is at its `resourceLocation`. If it has none and
//! `Operation-Location` or `Azure-AsyncOperation` named the monitor, Azure's rules apply:
//!
//! - After `PUT`, the result is the original resource.
//! - After `DELETE`, the document is the result.
//! - After any other method, the result is at the 202's `Location`, unless that is the monitor.
//! - After `PATCH` without such a `Location`, the result is the original resource.
//!
//! In all other cases the document is the result.
//!
//! If a document says `failed` and has a `resourceLocation`, the result is there too. Any other end
//! is an [error](#errors).
//!
//! A response with `AsyncResult` is the result, whatever its status. If its status is 200, the
//! layer replaces it with the value of `AsyncResult` (OData 4.01 §8.3.1).
//!
//! An `ETag` that begins with `"tower-accepted:` identifies a result at its monitor alone. The
//! layer removes it from the final response.
//!
//! The layer does not unwrap results of type `application/http`. Its polls do not accept this type,
//! so services of OData 4.0 and 4.01 send the result unwrapped.
//!
//! The extension [`Followed`] of a final response has its URI.
//!
//! # Streaming
//!
//! With [`streaming`](FollowAcceptedLayer::streaming), the caller gets a response while this
//! crate's server still produces it: the head as soon as there is one, and then each byte. A
//! connection that breaks is replaced. The body goes on at the first byte that is missing, so the
//! caller gets each byte once:
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//!
//! use axum::body::Body;
//! use futures_util::{StreamExt, stream};
//! use http::{Request, Response};
//! use http_body_util::BodyExt;
//! use tokio::time::{Instant, sleep};
//! use tower::{BoxError, ServiceBuilder, ServiceExt};
//! use tower_accepted::{
//!     AcceptedLayer, RequestBody,
//!     follow::{FollowAcceptedLayer, FollowError},
//! };
//!
//! // A service that writes a line every 20 seconds.
//! async fn write(_: Request<RequestBody<Body>>) -> Result<Response<Body>, Infallible> {
//!     let lines = stream::iter(["one\n", "two\n", "three\n"]).then(|line| async move {
//!         sleep(Duration::from_secs(20)).await;
//!         Ok::<_, Infallible>(line)
//!     });
//!     Ok(Response::new(Body::from_stream(lines)))
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let server = ServiceBuilder::new().layer(AcceptedLayer::new()).service_fn(write);
//!
//! let layer = FollowAcceptedLayer::new().streaming(true);
//! let client = ServiceBuilder::new().layer(layer).service(server);
//! let start = Instant::now();
//! let request = Request::post("http://example.com/lines").body(Body::empty())?;
//! let mut body = client.oneshot(request).await?.into_body();
//! let line = body.frame().await.ok_or("no line")?;
//! let line = line.map_err(FollowError::into_boxed)?;
//! assert_eq!(line.into_data().ok(), Some("one\n".into()));
//! assert!(start.elapsed() < Duration::from_secs(40), "the job still runs");
//!
//! let rest = body.collect().await.map_err(FollowError::into_boxed)?;
//! assert_eq!(rest.to_bytes(), "two\nthree\n");
//! # Ok(())
//! # }
//! ```
//!
//! - The output is at `{monitor}/stream`, with the monitor of `Link` and `rel="monitor"`. If a 202
//!   has no such link, or the server has no stream, the layer polls as it does by default.
//! - A response that a server streams instead of a 202 is resumed in the same way, if it has such a
//!   link.
//! - Connections of HTTP/1.0, and proxies to them, cannot show a break. Unless its `Content-Length`
//!   or trailers prove a body whole, the layer compares its length with the status document.
//! - After each break the layer asks the document, and then the stream, as it retries
//!   [polls](#poll-intervals). Each new byte resets the number of failures and the time limit.
//! - A job that runs again may produce another response. The layer starts anew if the caller has no
//!   byte and the new head is alike. Otherwise the body fails with [`Reason::Restarted`].
//! - An [observer](Observer) gets an update for each status document, before the head and after a
//!   break.
//! - A quiet body has no time limit, since a job may be quiet. A client that has to notice dead
//!   connections needs its own keep-alive, such as HTTP/2 pings.
//!
//! <div class="warning">
//!
//! Put a decompression layer around this layer, not inside it: offsets count the bytes that the
//! server keeps. Requests for the stream have `Accept-Encoding: identity`, so that reqwest does not
//! decode them. The original request is sent unchanged: turn off reqwest's decoding if the server
//! may stream instead of a 202. A response that the service itself has coded stays coded.
//!
//! </div>
//!
//! # Poll intervals
//!
//! - `Retry-After` sets the pause, in seconds or as a date. It counts on the 202 and on every later
//!   response, including failures and redirects.
//! - Without it, [pauses](FollowAcceptedLayer::pauses) double, with jitter.
//! - If a server has shown that it reads `Prefer`, the layer asks it to
//!   [hold its response](FollowAcceptedLayer::wait) until the job ends. If an [observer](Observer)
//!   is set and documents have entity tags, the server holds it until the document changes. The
//!   next pause is shorter by the time that the server held the response.
//! - If an [observer](Observer) is set and the 202 has a `Link` with `rel="monitor"`, the layer
//!   first asks for events (`Accept: text/event-stream`). The observer then gets each change at
//!   once, over one connection. The layer polls if the answer is no event stream, or if the stream
//!   breaks or is silent for 40 s.
//! - If a poll fails, times out, or is answered with 408, 429, 502, 503 or 504, the layer retries
//!   it after a pause, and asks for half the wait. It never sends the original request again.
//! - Time is tokio's, so tests can pause it.
//!
//! # Allowed origins
//!
//! A 202 must not make a client contact an internal network or leak its credentials. The monitor,
//! the result and every redirect must be on the original request's
//! [origin](https://www.rfc-editor.org/rfc/rfc6454) or on an
//! [allowed](FollowAcceptedLayer::allow_origin) one. The layer never goes from `https` to `http`.
//!
//! If the monitor is on another origin, the layer returns the 202. That is not an error, since the
//! server has accepted the request. If a later step leads to another origin, the call
//! [fails](Reason::OtherOrigin). If the URI of the original request is only a path, as for a router
//! in a test, paths count as the same origin.
//!
//! On the original origin, follow-up requests repeat the original request's headers and extensions.
//! They leave out headers that apply to that request alone, such as its content, its conditions,
//! `Prefer`, `Expect`, `Range` and `Idempotency-Key`. Polls have their own `Accept`. The request
//! for the result has the original one.
//!
//! Other origins get only [shared headers](FollowAcceptedLayer::share_header). The same holds for
//! every URI that a response from another origin has named.
//!
//! <div class="warning">
//!
//! reqwest's client follows redirects by default. Disable that, or it follows them before this
//! layer can check their origin.
//!
//! </div>
//!
//! # Limits
//!
//! | limit | default | error |
//! |---|---|---|
//! | [time](FollowAcceptedLayer::timeout) from the 202 to the head of the response, or from a break to the next part | 1 h | [`TimedOut`](Reason::TimedOut) |
//! | [polls](FollowAcceptedLayer::max_polls) | 3,600 | [`TooManyPolls`](Reason::TooManyPolls) |
//! | consecutive [failures](FollowAcceptedLayer::max_failures) | 10 | [`Unreachable`](Reason::Unreachable), [`Unavailable`](Reason::Unavailable), [`BrokenOff`](Reason::BrokenOff) |
//! | [redirects](FollowAcceptedLayer::max_redirects) of one request | 10 | [`TooManyRedirects`](Reason::TooManyRedirects) |
//! | [time](FollowAcceptedLayer::answer_timeout) for a response, without the requested wait | 30 s | counts as a failure |
//! | [size](FollowAcceptedLayer::max_document) of a status document | 1 MiB | [`DocumentTooLarge`](Reason::DocumentTooLarge) |
//! | minimum [pause](FollowAcceptedLayer::pauses) | 500 ms | |
//! | maximum [pause](FollowAcceptedLayer::pauses) without `Retry-After` | 30 s | |
//! | requested [wait](FollowAcceptedLayer::wait) | 30 s | |
//!
//! # Errors
//!
//! [`FollowError::Service`] has the client's own error: the original request failed, and the caller
//! can handle it as without this layer. [`FollowError::Stopped`] is an error of this layer: the
//! server accepted the request, but its response is not available. A retry may run the request
//! twice, so a retry layer around this one should check the variant. [`Stopped`] has the reason,
//! the last status document, and the URI of the monitor, which still shows the job.
//!
//! The response of a job is never an error, whatever its status.
//!
//! A body has the same error type. [`FollowError::Service`] has the error of the client's own body.
//! [`FollowError::Stopped`] is an error of a body that is [streamed](#streaming), and that the layer
//! could not complete.
//!
//! # Order of layers
//!
//! Layers inside this one see every request. A timeout there limits each of them, and a layer that
//! signs requests signs each of them. If such a layer returns a boxed error, see
//! [`FollowError::into_boxed`].
//!
//! Layers around this one see a single call. A timeout there drops the future. The job then
//! continues, unless [`cancel_on_drop`](FollowAcceptedLayer::cancel_on_drop) is set. The same holds
//! for a body that is dropped while its job runs.

mod backoff;
mod body;
mod cancel;
mod deadline;
mod destination;
mod document;
mod error;
mod events;
mod exclusive;
mod final_status;
mod finish;
mod followed;
mod follower;
mod future;
mod interpret;
mod layer;
mod links;
mod monitor;
mod oneshot;
mod options;
mod origin;
mod original;
mod parts;
mod peeked;
mod poll;
mod reference;
mod resumable;
mod resume;
mod schedule;
mod service;
mod streamed;
mod template;
mod update;
mod verdict;

pub use self::{
    body::FollowBody,
    document::StatusDocument,
    error::{FollowError, InvalidOrigin, Reason, Stopped},
    followed::{Followed, NotFollowed},
    future::ResponseFuture,
    layer::FollowAcceptedLayer,
    service::FollowAccepted,
    update::{Observer, Update},
};
