//! The client's half: a layer that follows a 202 (Accepted) to its end.
//!
//! [`FollowAcceptedLayer`] goes around any HTTP client that is a [`Service`](tower::Service): hyper-util's,
//! reqwest's, or in a test the server itself. Where a response is a 202 that names a status monitor, the
//! layer asks the monitor until the job has ended, and hands out the response that the job has led to, as if
//! the call had been synchronous. Every other response passes through as it is.
//!
//! This module needs the feature `follow`.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response, StatusCode};
//! use http_body_util::{BodyExt, Full};
//! use tower::{BoxError, ServiceBuilder, ServiceExt};
//! use tower_accepted::{AcceptedLayer, RequestBody, follow::FollowAcceptedLayer};
//!
//! // A service that is slow,
//! async fn render(_: Request<RequestBody<Full<Bytes>>>) -> Result<Response<Full<Bytes>>, BoxError> {
//!     tokio::time::sleep(std::time::Duration::from_secs(20)).await;
//!     Ok(Response::builder().status(StatusCode::CREATED).body("the report".into())?)
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! // a server that answers 202 for it (in the place of an HTTP client),
//! let server = ServiceBuilder::new().layer(AcceptedLayer::new()).service_fn(render);
//!
//! // and a client that sees nothing of that.
//! let client = ServiceBuilder::new().layer(FollowAcceptedLayer::new()).service(server);
//! let request = Request::post("http://example.com/reports").body("all of March".into())?;
//! let response = client.oneshot(request).await?;
//! assert_eq!(response.status(), StatusCode::CREATED);
//! assert_eq!(response.into_body().collect().await?.to_bytes(), "the report");
//! # Ok(())
//! # }
//! ```
//!
//! hyper-util's client is such a service as it is. reqwest's takes requests of its own:
//!
//! ```no_run
//! use http::{Request, Response};
//! use reqwest::{Body, Client, redirect::Policy};
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_accepted::follow::FollowAcceptedLayer;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Redirects are for the layer, which knows where it may go.
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
//! # What is followed
//!
//! A 202 names its monitor in one of these fields. The first one counts that leads where the layer
//! [may go](#where-it-goes):
//!
//! | field | of |
//! |---|---|
//! | `Operation-Location`, `Azure-AsyncOperation` | Azure's guidelines; this crate |
//! | `Link` with `rel="monitor"` | this crate |
//! | `Content-Location`, unless it is the address of the request itself | FHIR |
//! | `Location` | OData, Azure's resource manager, and what an ordinary 202 has made |
//!
//! A `Location` alone may be no monitor. It is asked, and counts as one if the answer looks like one's:
//!
//! - a 202, or a redirect by 303;
//! - a JSON object with a `status` that is one of Azure's or this crate's words for where a job stands;
//! - a response with `AsyncResult`, or of type `application/http`.
//!
//! With any other answer, or with none, the 202 is handed out as it is; so is one that names no monitor, and a
//! 202 to a `HEAD`. [`NotFollowed`], in its extensions, says why. Where each `Location` is known to be a monitor,
//! [`location_is_monitor`](FollowAcceptedLayer::location_is_monitor) says so.
//!
//! # What the answers mean
//!
//! | | pending | ended |
//! |---|---|---|
//! | this crate by default, Azure | 200 and a document whose `status` is no end | 200 and a document whose `status` is `succeeded`, `failed` or `canceled`, in any case |
//! | OData, FHIR, Azure's resource manager | 202 | anything else: the response itself |
//! | servers that redirect | 202 | 303 to the response |
//!
//! The response to a document that says `succeeded` is at its `resourceLocation`. Where it has none, and the
//! monitor was named in Azure's way, it is where Azure's clients look: after a `PUT` at the original
//! address; else at the 202's `Location`, if that is not the monitor; after a `PATCH` without one at the
//! original address. Else, and after a `DELETE`, the document is the response. One that says `failed` and has a
//! `resourceLocation` leads there too; any other end is an [error](#what-goes-wrong).
//!
//! `AsyncResult` on an answer says that it is the response, whatever its status. Of an OData service it is
//! also the response's status, in the place of 200. A result in the type `application/http` is not
//! unwrapped: polls ask for JSON or anything else, never for that type, and services of OData 4.0 and 4.01
//! then send the result bare.
//!
//! Followed are 202s alone: the 200 or 201 with `Operation-Location` by which some of Azure's services
//! answer a `PUT` is handed out. [`Followed`], in the extensions of a response that was followed, says where
//! it is from.
//!
//! # When it asks
//!
//! - `Retry-After` is obeyed, in seconds or as a date, from the 202 and from every answer since, failures
//!   and redirects included.
//! - Where nothing is said, [pauses](FollowAcceptedLayer::pauses) double, with jitter.
//! - A server that has shown that it reads `Prefer` is asked to [hold its answer](FollowAcceptedLayer::wait)
//!   until the job ends; or, where somebody listens for [updates](Observer) and its documents have entity
//!   tags, until something changes. The time for which it did so counts towards the next pause.
//! - A question that fails in transport, is not answered in time, or is answered with 429, 502, 503 or 504
//!   is put again after a pause. The original request is never sent again.
//! - Time is tokio's, and can be paused in tests.
//!
//! # Where it goes
//!
//! A 202 must not make its client fetch addresses of an internal network, or give its credentials away. The
//! monitor, the result and every redirect must be of the original request's
//! [origin](https://www.rfc-editor.org/rfc/rfc6454), or of one that is
//! [allowed](FollowAcceptedLayer::allow_origin); and nothing leads from `https` to `http`. A 202 whose monitor is
//! elsewhere is handed out as it is, and not an error, since what it answers for has been accepted. A later
//! step elsewhere is an [error](Reason::OtherOrigin). A request without an origin, a path alone as a router
//! takes it in a test, leads to paths.
//!
//! The headers and extensions of the original request go along within its origin, but for those that are about
//! that one request: its content and its conditions, `Prefer`, `Expect`, `Range`, `Idempotency-Key` and
//! the like. Polls have an `Accept` of their own; the result is asked for with the original one. Another origin
//! gets [shared headers](FollowAcceptedLayer::share_header) alone, and so does every address that another
//! origin has named.
//!
//! <div class="warning">
//!
//! A client that follows redirects by itself, as reqwest's does unless told not to, has gone where they lead
//! before this layer sees them.
//!
//! </div>
//!
//! # Limits
//!
//! | | default | passed |
//! |---|---|---|
//! | [time](FollowAcceptedLayer::timeout) from the 202 to the head of the response | 1 h | [`TimedOut`](Reason::TimedOut) |
//! | [polls](FollowAcceptedLayer::max_polls) | 3,600 | [`TooManyPolls`](Reason::TooManyPolls) |
//! | [failures](FollowAcceptedLayer::max_failures) in a row | 10 | [`Unreachable`](Reason::Unreachable), [`Unavailable`](Reason::Unavailable) |
//! | [redirects](FollowAcceptedLayer::max_redirects) of one question | 10 | [`TooManyRedirects`](Reason::TooManyRedirects) |
//! | [time](FollowAcceptedLayer::answer_timeout) for an answer, on top of the wait asked for | 30 s | counts as a failure |
//! | [size](FollowAcceptedLayer::max_document) of a status document | 1 MiB | [`DocumentTooLarge`](Reason::DocumentTooLarge) |
//! | [pause](FollowAcceptedLayer::pauses), shortest | 500 ms | |
//! | [pause](FollowAcceptedLayer::pauses), longest where nothing is said | 30 s | |
//! | [wait](FollowAcceptedLayer::wait) that a server is asked for | 30 s | |
//!
//! # What goes wrong
//!
//! [`FollowError::Service`] is the service's own error: the original request failed, and the caller may do with
//! it what it always does. [`FollowError::Stopped`] is this layer's: the request was accepted, and its
//! response could not be had. Sending it again may have it done twice, so a retry layer outside this one should
//! look which of the two it is. [`Stopped`] has the reason, the last status document, and the monitor's address,
//! by which the job can still be looked at.
//!
//! The response that a job has led to is no error, whatever its status.
//!
//! # Among other layers
//!
//! Layers inside this one, between it and the client, see every request: a time-out there is one for each, and
//! so is authentication that signs a request. Layers outside it see one call; a time-out there drops the
//! future, which leaves the job alone unless [`cancel_on_drop`](FollowAcceptedLayer::cancel_on_drop) says
//! otherwise.

mod answer;
mod body;
mod cancel;
mod carried;
mod chase;
mod document;
mod error;
mod followed;
mod future;
mod layer;
mod links;
mod options;
mod origin;
mod pace;
mod reference;
mod retry_after;
mod service;
mod start;
mod update;

pub use self::{
    body::FollowBody,
    document::StatusDocument,
    error::{FollowError, Reason, Stopped},
    followed::{Followed, NotFollowed},
    future::ResponseFuture,
    layer::FollowAcceptedLayer,
    service::FollowAccepted,
    update::{Observer, Update},
};
