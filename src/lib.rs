//! One tower [`Layer`](tower::Layer) that puts HTTP's 202 (Accepted) in front of any service.
//!
//! A slow endpoint holds its connection open, dies with it, and is retried into a second run. HTTP
//! has an answer: say *taken*, say where to look, do the work, hand out the result there
//! ([RFC 9110 §15.3.3]). [`AcceptedLayer`] does that for a service that knows nothing of it: it runs
//! the inner call in the background, answers 202 at once with the address of a status monitor, serves
//! that monitor from then on, and hands out the inner service's own response, byte for byte, when it
//! is there.
//!
//! ```
//! use axum::{Router, body::Body, routing::post};
//! use http::{Request, StatusCode};
//! use tower::ServiceExt;
//! use tower_accepted::Jobs;
//!
//! async fn render_report() -> &'static str {
//!     tokio::time::sleep(std::time::Duration::from_secs(90)).await; // slow, and knows nothing of 202
//!     "the report"
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let jobs = Jobs::new(); // where accepted requests live
//! let app = Router::new()
//!     .route("/reports", post(render_report))
//!     .layer(jobs.layer());
//!
//! // A client is answered at once …
//! let request = Request::post("/reports").body(Body::empty()).unwrap();
//! let accepted = app.clone().oneshot(request).await.unwrap();
//! assert_eq!(accepted.status(), StatusCode::ACCEPTED);
//! let monitor = accepted.headers()["location"].to_str().unwrap();
//!
//! // … looks how it is going …
//! let request = Request::get(monitor).body(Body::empty()).unwrap();
//! let status = app.clone().oneshot(request).await.unwrap();
//! assert_eq!(status.headers()["retry-after"], "1");
//!
//! // … and fetches the result, as often as it likes.
//! tokio::time::sleep(std::time::Duration::from_secs(91)).await;
//! let request = Request::get(format!("{monitor}/result")).body(Body::empty()).unwrap();
//! let result = app.clone().oneshot(request).await.unwrap();
//! assert_eq!(axum::body::to_bytes(result.into_body(), 100).await.unwrap(), "the report");
//! # }
//! ```
//!
//! # What it promises
//!
//! - **Any service.** `Service<Request<B>>`: an axum router, bare hyper, a proxy in front of a program
//!   in any language. [`Accepted`] is always ready; each call drives its own clone of the inner
//!   service, so that one which is saturated delays neither a 202 nor the monitor. Concurrency, rate
//!   and retry are tower's own layers, inside this one.
//! - **Nothing is started twice.** Under [`When::After`] a call starts on the request's own task. Done
//!   in time, it is an ordinary response; slower, the running future itself moves to the background.
//! - **A job cannot stick.** It ends once, whatever happens: a response, a panic, an error, a broken
//!   body, too large a result, a time-out, a cancel, a shutdown ([`ErrorCode`]). How long it is kept
//!   counts from there.
//! - **Read your write.** The job is there before the 202 leaves: a GET right after it never finds 404.
//! - **Byte-exact replay** of status, every header value, body and trailers, but for what would be
//!   wrong or unsafe in an answer to another request: hop-by-hop fields ([RFC 9110 §7.6.1]) are not
//!   kept, nor cookies of a job without an owner ([`Builder::replay_cookies`]); `AsyncResult`,
//!   `Accept-Ranges` and `Vary` are added, and where they are missing `ETag`,
//!   `Cache-Control: private, no-store` and `X-Content-Type-Options: nosniff`.
//! - **Nothing is accepted that can't be kept.** Limits on unfinished jobs, bytes and body size are
//!   answered 503 and 413 before a 202 ([`Builder`] has them with their defaults). For room, ended jobs
//!   go, oldest first; unfinished ones never.
//! - **An id is a capability** ([`JobId`]): who has not been told it sees 404.
//!
//! # What a client sees
//!
//! The layer serves these itself, under [`Builder::monitor_path`], without asking the inner service:
//!
//! | request | answer |
//! |---|---|
//! | `GET /jobs/{id}` | 200 and the status document, in every state; `Retry-After` while unfinished; strong `ETag`, so `If-None-Match` → 304 |
//! | … with `Prefer: wait=N` | held until the job ends, or with `If-None-Match` until the document differs; at most N s and [`Builder::max_wait`] |
//! | … with `Accept: text/event-stream`, and `GET /jobs/{id}/events` | Server-Sent Events named `status`: the document at once, and each time it has changed; `id` is its revision, so `Last-Event-ID` resumes. They end with the job, and 204 tells an `EventSource` not to come back |
//! | … with `Accept` that prefers HTML to JSON, as browsers' do | a page for people: state, progress, a button to cancel; it goes to the result when that is there. A form that was posted is led there by a 303 instead of the 202 |
//! | `GET /jobs/{id}/status` | the same document in every [`Dialect`] |
//! | `GET /jobs/{id}/result` | the inner service's response, with `AsyncResult: <its status>`; unfinished: 202 and the document; ended without a response: a problem (500; timeout 504, canceled 409, lost 502). Conditional and range requests; `Prefer: wait` |
//! | `POST /jobs/{id}/cancel` | 200 and the document; ended already: unchanged |
//! | `DELETE /jobs/{id}` | 204: canceled if unfinished, and forgotten |
//! | `GET /jobs` | where jobs have owners: that owner's, newest first; `?status=`, `?limit=`, `?cursor=` |
//! | unknown, malformed, somebody else's | 404 |
//! | expired, still remembered | 410 |
//! | another method | 405 with `Allow`; `OPTIONS` 204; `HEAD` as `GET` |
//!
//! The status document:
//!
//! ```json
//! {
//!   "id": "tQ3nC2hDQ0eY6o1bF9qk5A", "self": "/jobs/tQ3nC2hDQ0eY6o1bF9qk5A", "status": "succeeded",
//!   "createdAt": "2026-11-23T13:40:01.120Z", "startedAt": "2026-11-23T13:40:01.121Z",
//!   "finishedAt": "2026-11-23T13:41:31.300Z", "expiresAt": "2026-11-23T14:41:31.300Z",
//!   "percentComplete": 100, "message": "page 10 of 10",
//!   "resourceLocation": "/jobs/tQ3nC2hDQ0eY6o1bF9qk5A/result",
//!   "response": {"status": 200, "contentType": "application/pdf", "contentLength": 48213}
//! }
//! ```
//!
//! While it is unfinished there may be an `estimatedFinishAt`. `status` is `queued`, `running`,
//! `succeeded`, `failed` or `canceled`; a job that failed or was canceled has an `error` with a `code`
//! ([`ErrorCode`]) and a `message`. What is absent is absent, not null.
//!
//! Clients of other conventions (OData, FHIR, browsers, `curl -L`) are served by another [`Dialect`]; how
//! addresses are written is a choice of [`Links`]; whom a job belongs to, of [`Builder::owner`].
//!
//! A request may carry an `Idempotency-Key`: repeated, it joins the job of the first, even while that
//! runs, and the inner service is called once ([`Idempotency`]).
//!
//! # Where it goes
//!
//! Around a whole axum router, last, it needs nothing more. On one route, under `nest` and among other
//! layers there is something to know: see [`mounting`].
//!
//! # In the inner service
//!
//! Nothing needs to change. A service that wants to tell how far it is, or to hear that nobody waits
//! any more, asks for its [`JobHandle`].
//!
//! # When to ask again
//!
//! `Retry-After` and `estimatedFinishAt` come from how long the last requests of the same [`Kind`] took, from
//! how long this one has, and from its progress: see [`estimating`].
//!
//! # For the operator
//!
//! Each job has a [`tracing`] span, `job`, with its id, method and end; what the inner service logs is inside it. With
//! the feature `metrics` there are counters, gauges and histograms, told in the module `metrics`.
//!
//! # Shutting down
//!
//! Stop accepting connections, then [`Jobs::drain`], and keep the monitor served until it returns.
//!
//! [RFC 9110 §7.6.1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
//! [RFC 9110 §15.3.3]: https://www.rfc-editor.org/rfc/rfc9110#section-15.3.3

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "server")]
mod builder;
#[cfg(feature = "server")]
mod config;
#[cfg(feature = "server")]
mod estimate;
#[cfg(feature = "follow")]
pub mod follow;
#[cfg(feature = "server")]
mod job;
#[cfg(feature = "server")]
mod jobs;
#[cfg(feature = "server")]
mod limit;
#[cfg(feature = "server")]
mod middleware;
#[cfg(feature = "server")]
mod monitor;
#[cfg(feature = "server")]
mod problem;
#[cfg(any(feature = "server", feature = "follow"))]
mod protocol;
#[cfg(feature = "server")]
mod registry;
#[cfg(feature = "server")]
mod run;
#[cfg(feature = "server")]
mod stop;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
mod telemetry;

#[cfg(feature = "server")]
pub use crate::{
    builder::{DefaultStore, InMemory, JobsBuilder},
    config::{Dialect, Idempotency, Links, Policy, When},
    estimate::Kind,
    job::{
        Cursor, ErrorCode, Event, Failure, Filter, JobHandle, JobId, Owner, Page, ParseCursorError,
        ParseErrorCodeError, ParseJobIdError, ParseStatusError, Progress, ResponseHead, Snapshot,
        Status,
    },
    jobs::Jobs,
    middleware::{Accepted, AcceptedLayer, ResponseBody, ResponseFuture},
    monitor::{Monitor, MonitorBody, MonitorFuture},
    run::{RequestBody, Worker},
};

#[doc = include_str!("guide/mounting.md")]
pub mod mounting {}

#[cfg(feature = "nats")]
#[doc = include_str!("guide/nats.md")]
pub mod nats {
    #[doc = include_str!("guide/nats_operations.md")]
    pub mod operations {}

    #[doc = include_str!("guide/nats_internals.md")]
    pub mod internals {}
}

#[doc = include_str!("guide/estimate.md")]
#[doc = include_str!("../docs/estimate.svg")]
pub mod estimating {}

#[cfg(feature = "metrics")]
#[doc = include_str!("guide/metrics.md")]
pub mod metrics {}

/// The README's examples, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
