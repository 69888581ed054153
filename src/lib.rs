//! One tower [`Layer`](tower_layer::Layer) that puts HTTP's 202 (Accepted) in front of any service.
//!
//! A slow endpoint holds its connection open, fails when the connection fails, and is run a second
//! time when the client retries. HTTP has an answer ([RFC 9110 §15.3.3]): accept the request, name
//! a status monitor, do the work, and serve the result there. [`AcceptedLayer`] does this for a
//! service that need not change:
//!
//! 1. It runs the inner call, in the background if it is slow.
//! 2. It answers 202 with the address of the job's status monitor.
//! 3. It serves the monitor.
//! 4. It replays the inner service's own response, byte for byte, once it is complete.
//!
//! ```
//! use std::time::Duration;
//!
//! use axum::{Router, body::Body, routing::post};
//! use http::{Request, StatusCode};
//! use tower::ServiceExt;
//! use tower_accepted::{Jobs, When};
//!
//! // A slow handler, which does not know about the layer.
//! async fn render_report() -> &'static str {
//!     tokio::time::sleep(Duration::from_secs(90)).await;
//!     "the report"
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! // The registry of accepted requests.
//! let jobs = Jobs::new();
//! let app = Router::new()
//!     .route("/reports", post(render_report))
//!     .layer(jobs.layer().when(When::After(Duration::from_millis(300))));
//!
//! // After 300 ms the client gets a 202 …
//! let request = Request::post("/reports").body(Body::empty()).unwrap();
//! let accepted = app.clone().oneshot(request).await.unwrap();
//! assert_eq!(accepted.status(), StatusCode::ACCEPTED);
//! let monitor = accepted.headers()["location"].to_str().unwrap();
//!
//! // … polls the status monitor …
//! let request = Request::get(monitor).body(Body::empty()).unwrap();
//! let status = app.clone().oneshot(request).await.unwrap();
//! assert_eq!(status.headers()["retry-after"], "1");
//!
//! // … and fetches the result, as often as it likes.
//! tokio::time::sleep(Duration::from_secs(91)).await;
//! let request = Request::get(format!("{monitor}/result")).body(Body::empty()).unwrap();
//! let result = app.clone().oneshot(request).await.unwrap();
//! assert_eq!(axum::body::to_bytes(result.into_body(), 100).await.unwrap(), "the report");
//! # }
//! ```
//!
//! # Guarantees
//!
//! - **Any service, unchanged.** The inner service is any `Service<Request<B>>`: an axum router,
//!   bare hyper, or a proxy in front of a program in any language. [`Accepted`] is always ready,
//!   and each call drives its own clone of the inner service. A saturated inner service delays
//!   neither a 202 nor the monitor. Put tower's layers for concurrency, rate and retry inside this
//!   one.
//! - **Nothing starts twice.** Under [`When::After`] the call starts on the request's own task. If
//!   it is done in time, its response is an ordinary one. Otherwise the running future moves to a
//!   background task.
//! - **Every job ends exactly once**, with a response or with an [`ErrorCode`], such as a panic, an
//!   error, a timeout, a cancellation or a shutdown. Retention counts from the end.
//! - **The result is replayed byte for byte**: status, header values, body and trailers, with the
//!   [exceptions listed below](#how-a-result-differs).
//! - **Clients read their own writes.** The job exists before its 202 is sent, so a `GET` right
//!   after it never gets 404.
//! - **Waiting is honest.** `Retry-After` is learned from earlier jobs of the same [`Kind`]. A
//!   client can also have a request held, listen to events, or watch a page.
//! - **A repeated `Idempotency-Key` joins the first job**, running or ended. The inner service is
//!   called once. The key outlives the result: a repeat then gets 410. See [`Idempotency`].
//! - **Limits come before the 202.** A request over a limit on jobs, bytes or body size gets 503 or
//!   413, or passes through if it need not become a job. [`JobsBuilder::shed_when_full`] refuses
//!   it at the limit on jobs. [`JobsBuilder`] has the limits and defaults. Memory is freed by
//!   evicting ended jobs, oldest first. Unfinished jobs are never evicted.
//! - **Clients can be notified.** With the feature `webhook`, the end of a job is recorded with a
//!   signed webhook for each of its receivers. It is retried for three days, until the receiver
//!   acknowledges it with a 2xx.
//! - **An id is a capability.** A [`JobId`] has 128 random bits. Without the id, or as another
//!   [owner](JobsBuilder::owner), a client gets 404. A job without an owner can be read and
//!   canceled by every client that knows its address.
//!
//! By default, jobs are kept in this process's memory and are lost with it. With the feature
//! `sqlite` or `nats`, a request is stored in a SQLite file or in NATS JetStream before its 202 is
//! sent, and survives the process.
//!
//! # What a client sees
//!
//! The layer serves these resources under [`JobsBuilder::monitor_path`], without calling the inner
//! service:
//!
//! | request | answer |
//! |---|---|
//! | `GET /jobs/{id}` | 200 and the status document, in every state. `Retry-After` while the job is unfinished. A strong `ETag`, so `If-None-Match` can give 304 |
//! | … with `Prefer: wait=N` | held until the job ends; with `If-None-Match`, until the document changes. At most N s and [`JobsBuilder::max_wait`] |
//! | … with `Accept: text/event-stream`; `GET /jobs/{id}/events` | Server-Sent Events `status`: the document at once and after each change. The `id` is its revision, so `Last-Event-ID` resumes. The stream ends with the job; then 204 stops an `EventSource` |
//! | … if `Accept` prefers HTML to JSON, as browsers do | a page with the state, the progress and a cancel button. It shows text output as it grows. Otherwise it opens the result once there is one. A request that becomes a job then gets a 303 to the page instead of a 202, as a posted form does |
//! | `GET /jobs/{id}/status` | the document, in every [`Dialect`] |
//! | `GET /jobs/{id}/result` | the inner service's response, with `AsyncResult: <its status>`. Unfinished: 202 and the document. Ended without a response: a problem, or in a browser the page, with the same status (500; timeout 504, canceled 409, lost 502). Supports conditional requests, ranges and `Prefer: wait`. With `Accept: application/http`, the whole response as one message |
//! | `GET /jobs/{id}/stream` | the inner service's response while it is produced. `?offset=N` and `Last-Event-ID` resume, and `?ids` adds ids to events: see the [guide](guide::streaming). No head yet: held, at most [`JobsBuilder::max_wait`], then 202. A `Last-Event-ID` after which no event follows gets 204, which stops an `EventSource` |
//! | `GET /jobs/{id}/callbacks` | the receivers of the job's webhooks, and the state of each delivery. 404 if there is no receiver |
//! | `GET /jobs/callbacks-key` | the public keys that verify webhooks. 404 if there is none |
//! | `POST /jobs/{id}/cancel` | 200 and the document. An ended job does not change |
//! | `DELETE /jobs/{id}` | 204. An unfinished job is canceled. The job is then unknown, and its `Idempotency-Key` is free |
//! | `GET /jobs` | the owner's jobs, newest first, if jobs have owners: `?status=`, `?limit=`, `?cursor=`, each once. Other parameters are ignored |
//! | an unknown id, a malformed id, a job of another owner | 404 |
//! | an expired job that is still remembered | 410 |
//! | another method | 405 with `Allow`. `OPTIONS` gets 204, `HEAD` is treated as `GET` |
//! | `If-Match` and other conditions that fail (RFC 9110 §13) | 412, or 304 for a `GET`. `DELETE` and cancel compare the document's `ETag`, in one step with the change |
//!
//! A client can read the status document in a 202, at the monitor, and in events:
//!
//! ```json
//! {
//!   "id": "tQ3nC2hDQ0eY6o1bF9qk5A",
//!   "self": "/jobs/tQ3nC2hDQ0eY6o1bF9qk5A",
//!   "status": "succeeded",
//!   "createdAt": "2026-11-23T13:40:01.120Z",
//!   "startedAt": "2026-11-23T13:40:01.121Z",
//!   "finishedAt": "2026-11-23T13:41:31.300Z",
//!   "expiresAt": "2026-11-23T14:41:31.300Z",
//!   "title": "Annual report 2026",
//!   "percentComplete": 100,
//!   "message": "page 10 of 10",
//!   "resourceLocation": "/jobs/tQ3nC2hDQ0eY6o1bF9qk5A/result",
//!   "response": {"status": 200, "contentType": "application/pdf", "contentLength": 48213}
//! }
//! ```
//!
//! - `status` is `queued`, `running`, `succeeded`, `failed` or `canceled`.
//! - `title` is present if [`AcceptedLayer::title`] or [`JobHandle::title`] has set one.
//! - `percentComplete` and `message` are what the call has reported. A job that has reported a
//!   fraction is at 100 once it has succeeded.
//! - `estimatedFinishAt` may be present while the job is unfinished.
//! - `response` has a `retryAfter` if the response has a `Retry-After`. Its value is the field's.
//! - `error` is present if the job failed or was canceled. It has a `code` ([`ErrorCode`]) and a
//!   `message`.
//! - `callbacks` is present if the job notifies receivers. It is a link to their deliveries.
//! - An absent value is left out, not `null`.
//!
//! [`Dialect`] serves other conventions: OData, FHIR, browsers, `curl -L`. [`Links`] sets how
//! addresses are written. [`JobsBuilder::owner`] binds jobs to principals.
//!
//! ## How a result differs
//!
//! The inner service answers the original request; the monitor replays its response to any `GET`
//! for the result. Some of it would be wrong or unsafe there:
//!
//! - A 202, 206, 304, 307 or 308 is served as 200. `AsyncResult` has the original status, and
//!   `follow` restores it.
//! - Content and trailers of a 204, 205 or 304 are not kept.
//! - `Retry-After` is in the status document only.
//! - References in `Location`, `Content-Location`, `Link` and `Refresh` that are relative to the
//!   request's URI are resolved ([RFC 9110 §10.2.2]). They are written as [`Links`] says.
//! - Hop-by-hop fields are not kept ([RFC 9110 §7.6.1]).
//! - `Set-Cookie` and `Clear-Site-Data` are kept only if the job has an owner, or if
//!   [`JobsBuilder::replay_cookies`] is set.
//! - `AsyncResult`, `Accept-Ranges` and `Vary` are added.
//! - `Cache-Control: private, no-store` and `X-Content-Type-Options: nosniff` are added if they are
//!   missing. An owned job's `Cache-Control` is always `private, no-store`.
//! - A 200 without an `ETag` gets `"tower-accepted:{id}"`. `follow` removes this tag.
//!
//! # In the inner service
//!
//! The inner service need not change. To report progress, or to stop when its work is no longer
//! needed, it asks for its [`JobHandle`]. Without the layer, the handle does nothing:
//!
//! ```
//! use tower_accepted::JobHandle;
//!
//! async fn render_report() -> &'static str {
//!     let job = JobHandle::current();
//!     job.title("Annual report 2026");
//!     job.progress(0.4);
//!     job.message("page 4 of 10");
//!     "the report"
//! }
//! ```
//!
//! - [`JobHandle::canceled`] completes when the work is no longer needed: the job is canceled or
//!   has ended, or the client has disconnected before there was a job. [`JobHandle::token`] is the
//!   same as a token.
//! - [`JobHandle::accepted`] completes with the job's id once the request has become a job.
//! - [`JobHandle::scope`] keeps the handle current in a spawned task.
//!
//! An error of tower's or tokio's timeouts ends the job as [`ErrorCode::Timeout`]; any other error
//! of the inner service, as [`ErrorCode::InnerError`].
//!
//! An application can do in process what the monitor does over HTTP: [`Jobs::get`],
//! [`Jobs::changes`], [`Jobs::result`], [`Jobs::cancel`], [`Jobs::forget`] and [`Jobs::document`].
//!
//! Each job has a [`tracing`] span named `job`, with its id, method, kind and end. Events that the
//! inner service logs once the request is a job are inside that span.
//! [`AcceptedLayer::make_span`] replaces it. In the span of the request, one event at level info
//! has the id of the job that the request has become.
//!
//! # Shutting down
//!
//! [`Jobs::drain`] stops accepting requests, and waits for jobs to end and for clients to fetch
//! their results. The server must still answer meanwhile. In axum, call it inside
//! `with_graceful_shutdown`. After `axum::serve(…).await` it is too late: without a graceful
//! shutdown that line is never reached, and with one the server has stopped answering.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use axum::{Router, routing::post};
//! use tower_accepted::{Jobs, When};
//!
//! # async fn render_report() {}
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! let jobs = Jobs::new();
//! let app = Router::new()
//!     .route("/reports", post(render_report))
//!     .layer(jobs.layer().when(When::After(Duration::from_millis(300))));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, app)
//!     .with_graceful_shutdown(async move {
//!         let _ = tokio::signal::ctrl_c().await; // in production, also SIGTERM
//!         jobs.drain(Duration::from_secs(30)).await;
//!     })
//!     .await
//! # }
//! ```
//!
//! # Feature flags
//!
//! | feature | adds |
//! |---|---|
//! | `server` (default) | the layer, the monitor, and the store in memory |
//! | `follow` | the module `follow`: a client layer that turns a 202 into the final response, and can stream it. `default-features = false` leaves out the dependencies that only the server needs |
//! | `metrics` | metrics of requests and jobs, through the [`metrics`](https://docs.rs/metrics) facade |
//! | `sqlite` | the module `store::sqlite`: a store in one SQLite file. Needs a C compiler |
//! | `nats` | the module `store::nats`: a store in NATS JetStream, with workers in any number of processes |
//! | `webhook` | webhooks: the server notifies a receiver when a job ends. Includes `webhook-verify` |
//! | `webhook-verify` | the module `webhook`, which verifies signed webhooks in a receiver. `default-features = false` leaves out the dependencies that only the server needs |
//! | `conformance` | the module `store::conformance`: test suites for authors of stores |
//! | `gateway` | the program `accepted-gateway`, which puts 202 in front of any HTTP server. Implies `metrics` |
//! | `jemalloc` | an allocator for the gateway that returns memory after a peak. Implies `gateway` |
//!
//! `metrics`, `sqlite`, `nats`, `webhook`, `conformance`, `gateway` and `jemalloc` include
//! `server`. `follow` and `webhook-verify` do not.
//!
//! # Versions
//!
//! The crate compiles with Rust 1.89 and later. It works with tower 0.5, through `tower-layer` 0.3
//! and `tower-service` 0.3, and with http 1 and http-body 1. It is tested with axum 0.8, hyper 1
//! and tower-http 0.7. It runs on tokio 1.
//!
//! # Guides
//!
//! The module [`guide`] has longer texts: [where the layer goes](guide::mounting),
//! [how clients read a stream](guide::streaming), [how polls are timed](guide::estimates),
//! [memory](guide::memory), and, with their features, metrics, SQLite, webhooks and JetStream.
//!
//! [RFC 9110 §10.2.2]: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.2
//! [RFC 9110 §7.6.1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
//! [RFC 9110 §15.3.3]: https://www.rfc-editor.org/rfc/rfc9110#section-15.3.3

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "server")]
mod awaited;
#[cfg(feature = "server")]
mod builder;
#[cfg(feature = "server")]
mod config;
#[cfg(feature = "server")]
mod estimate;
#[cfg(feature = "follow")]
pub mod follow;
#[cfg(feature = "server")]
pub mod guide;
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
#[cfg(feature = "webhook")]
mod notify;
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
#[cfg(feature = "webhook-verify")]
pub mod webhook;

#[cfg(feature = "server")]
pub use crate::{
    builder::{DefaultStore, InMemory, JobsBuilder},
    config::{
        AnyMethod, Backpressure, ConfigError, Dialect, Idempotency, Links, Outcomes, Policy, When,
        WhenFn,
    },
    estimate::Kind,
    job::{
        Cursor, ErrorCode, Event, Failure, Filter, JobHandle, JobId, Owner, Page, ParseCursorError,
        ParseErrorCodeError, ParseJobIdError, ParseStatusError, Progress, ResponseHead, Snapshot,
        Status,
    },
    jobs::Jobs,
    middleware::{Accepted, AcceptedLayer, ResponseBody, ResponseFuture},
    monitor::{Monitor, MonitorBody, MonitorFuture},
    run::{RequestBody, Unreached, Worker},
};

/// The README's examples, compiled. They need these features.
#[cfg(all(
    doctest,
    feature = "follow",
    feature = "nats",
    feature = "sqlite",
    feature = "webhook"
))]
#[doc = include_str!("../README.md")]
struct Readme;
