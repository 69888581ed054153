//! Layers outside and inside this one: the advice of the guide, and the effect of others.

use std::{
    collections::HashMap,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    error_handling::HandleErrorLayer,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderName, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tower::{
    BoxError, Layer, ServiceBuilder,
    limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer},
    retry,
};
use tower_accepted::{AcceptedLayer, JobHandle, Jobs, RequestBody, When};
use tower_http::{
    compression::CompressionLayer,
    cors::{Any, CorsLayer},
    decompression::DecompressionLayer,
    timeout::TimeoutLayer,
    trace::TraceLayer,
};
use tracing_subscriber::{layer::Context, prelude::*, registry::LookupSpan};

use crate::support::*;

/// Creates two routes that share only their layers.
fn routes() -> Router {
    Router::new().route("/a", slow()).route("/b", slow())
}

/// Submits a job to each route and returns their statuses a second later.
async fn statuses_after_a_second(app: &Router) -> [String; 2] {
    let [a, b] = [send(app, post("/a")).await, send(app, post("/b")).await];
    sleep(Duration::from_secs(1)).await;
    [status(app, &a).await, status(app, &b).await]
}

async fn status(app: &Router, accepted: &Answer) -> String {
    let document = send(app, get(accepted.location())).await.json();
    document["status"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn global_limit_inside_one_builder_queues_jobs() {
    let app = routes().layer(
        ServiceBuilder::new()
            .layer(AcceptedLayer::new())
            .layer(GlobalConcurrencyLimitLayer::new(1)),
    );
    assert_eq!(statuses_after_a_second(&app).await, ["running", "queued"]);
}

#[tokio::test(start_paused = true)]
async fn local_limit_applies_to_each_route() {
    let app = routes().layer(
        ServiceBuilder::new()
            .layer(AcceptedLayer::new())
            .layer(ConcurrencyLimitLayer::new(1)),
    );
    assert_eq!(statuses_after_a_second(&app).await, ["running", "running"]);
    let third = send(&app, post("/a")).await;
    assert_eq!(status(&app, &third).await, "queued");
}

#[tokio::test(start_paused = true)]
async fn limit_in_another_layer_call_hides_the_queue() {
    let app = routes()
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .layer(AcceptedLayer::new());
    assert_eq!(statuses_after_a_second(&app).await, ["running", "running"]);
    // The limit still applies.
    sleep(Duration::from_secs(2)).await;
    let started = Instant::now();
    let one = send(&app, post("/a")).await;
    let other = send(&app, post("/b")).await;
    ended(&app, &one).await;
    ended(&app, &other).await;
    assert!(
        started.elapsed() >= Duration::from_secs(4),
        "both jobs ran at once"
    );
}

#[tokio::test(start_paused = true)]
async fn limit_outside_delays_only_the_202() {
    let app = routes().layer(
        ServiceBuilder::new()
            .layer(GlobalConcurrencyLimitLayer::new(1))
            .layer(AcceptedLayer::new()),
    );
    assert_eq!(statuses_after_a_second(&app).await, ["running", "running"]);
}

#[tokio::test(start_paused = true)]
async fn rate_limit_goes_inside_behind_a_buffer() {
    let service = ServiceBuilder::new()
        .layer(AcceptedLayer::new())
        .buffer(16)
        .rate_limit(1, Duration::from_secs(10))
        .service(inner(async |_| {
            JobHandle::current().message("at work");
            ok("done")
        }));
    let started = Instant::now();
    let mut accepted = Vec::new();
    for _ in 0..3 {
        accepted.push(send(&service, post("/")).await);
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
    sleep(Duration::from_secs(1)).await;
    let mut states = Vec::new();
    for accepted in &accepted {
        let document = send(&service, get(accepted.location())).await.json();
        states.push(document["status"].as_str().unwrap().to_owned());
    }
    // A request in the buffer counts as running.
    assert_eq!(states, ["succeeded", "running", "running"]);
    for accepted in &accepted {
        let document = ended(&service, accepted).await;
        assert_eq!(
            (&document["status"], &document["message"]),
            (&"succeeded".into(), &"at work".into())
        );
    }
    assert!(started.elapsed() >= Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn error_from_inside_is_handled_outside() {
    let unavailable = async |_: BoxError| StatusCode::SERVICE_UNAVAILABLE;
    let app = routes().layer(
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(unavailable))
            .layer(AcceptedLayer::new())
            .load_shed()
            .layer(GlobalConcurrencyLimitLayer::new(1)),
    );
    let [one, other] = [send(&app, post("/a")).await, send(&app, post("/b")).await];
    assert_eq!(ended(&app, &one).await["status"], "succeeded");
    // Load shedding inside fails a job that was accepted.
    assert_eq!(ended(&app, &other).await["error"]["code"], "inner_error");
}

#[tokio::test(start_paused = true)]
async fn load_shed_outside_fails_no_job() {
    let unavailable = async |_: BoxError| StatusCode::SERVICE_UNAVAILABLE;
    let jobs = Jobs::builder().max_unfinished(3).build();
    let app = routes().layer(
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(unavailable))
            .load_shed()
            .layer(jobs.layer())
            .layer(GlobalConcurrencyLimitLayer::new(1)),
    );
    let mut accepted = Vec::new();
    for _ in 0..3 {
        accepted.push(send(&app, post("/a")).await);
    }
    let refused = send(&app, post("/a")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    for accepted in &accepted {
        assert_eq!(ended(&app, accepted).await["status"], "succeeded");
    }
}

/// Retries a failed request, at most this many times.
#[derive(Clone)]
struct Retries(usize);

impl<Rq: Clone, B, E> retry::Policy<Rq, http::Response<B>, E> for Retries {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Rq,
        result: &mut Result<http::Response<B>, E>,
    ) -> Option<Ready<()>> {
        let failed = !matches!(result, Ok(response) if response.status().is_success());
        self.0 = self.0.checked_sub(usize::from(failed))?;
        failed.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Rq) -> Option<Rq> {
        Some(request.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn retry_inside_ends_the_job_with_the_last_attempt() {
    // Makes the request `Clone`. The layer has read the body, so this never waits.
    let whole = async |request: http::Request<RequestBody<Body>>| {
        let (head, body) = request.into_parts();
        let body = Full::new(body.collect().await?.to_bytes());
        Ok::<_, axum::Error>(http::Request::from_parts(head, body))
    };
    let calls = Counter::default();
    let service = ServiceBuilder::new()
        .layer(AcceptedLayer::new())
        .filter_async(whole)
        .retry(Retries(4))
        .service_fn({
            let calls = calls.clone();
            move |request: http::Request<Full<Bytes>>| {
                calls.up();
                let mut response = http::Response::new(request.into_body());
                if calls.count() < 3 {
                    *response.status_mut() = StatusCode::BAD_GATEWAY;
                }
                async { Ok::<_, BoxError>(response) }
            }
        });
    let accepted = send(&service, post("/").map(|_| Body::from("again"))).await;
    assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
    assert_eq!(result(&service, &accepted).await.text(), "again");
    assert_eq!(calls.count(), 3);
}

/// The response headers of this layer that a page of another origin must be able to read.
const EXPOSED: [HeaderName; 7] = [
    header::LOCATION,
    HeaderName::from_static("operation-location"),
    header::LINK,
    header::RETRY_AFTER,
    header::ETAG,
    HeaderName::from_static("asyncresult"),
    HeaderName::from_static("preference-applied"),
];

fn cross_origin(mut request: http::Request<Body>) -> http::Request<Body> {
    let origin = "https://elsewhere.example".parse().unwrap();
    request.headers_mut().insert("origin", origin);
    request
}

#[tokio::test(start_paused = true)]
async fn cors_goes_outside_and_exposes_headers() {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([http::Method::POST, http::Method::DELETE])
        .expose_headers(EXPOSED);
    let app = routes().layer(AcceptedLayer::new()).layer(cors.clone());
    let accepted = send(&app, cross_origin(post("/a"))).await;
    ended(&app, &accepted).await;
    let at = accepted.location().to_owned();
    let document = send(&app, cross_origin(get(&at))).await;
    let result = send(&app, cross_origin(get(&format!("{at}/result")))).await;
    for answer in [&accepted, &document, &result] {
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in EXPOSED {
            assert!(exposed.split(',').any(|exposed| exposed == name), "{name}");
        }
    }
    let mut preflight = cross_origin(request("OPTIONS", &at));
    let method = "DELETE".parse().unwrap();
    preflight
        .headers_mut()
        .insert("access-control-request-method", method);
    let allowed = send(&app, preflight).await;
    assert_eq!(
        allowed.header("access-control-allow-methods"),
        Some("POST,DELETE")
    );

    // Inside, it does not see the layer's own responses.
    let app = routes().layer(cors).layer(AcceptedLayer::new());
    let accepted = send(&app, cross_origin(post("/a"))).await;
    assert_eq!(accepted.header("access-control-allow-origin"), None);
}

fn gzip(mut request: http::Request<Body>) -> http::Request<Body> {
    let gzip = "gzip".parse().unwrap();
    request.headers_mut().insert("accept-encoding", gzip);
    request
}

#[tokio::test(start_paused = true)]
async fn compression_outside_is_per_reader() {
    let app = routes()
        .layer(AcceptedLayer::new())
        .layer(CompressionLayer::new());
    let accepted = send(&app, gzip(post("/a"))).await;
    assert_eq!(accepted.header("content-encoding"), Some("gzip"));
    ended(&app, &accepted).await;
    let at = format!("{}/result", accepted.location());
    let compressed = send(&app, gzip(get(&at))).await;
    let plain = send(&app, get(&at)).await;
    assert_eq!(compressed.header("content-encoding"), Some("gzip"));
    assert_eq!(plain.header("content-encoding"), None);
    assert_eq!(plain.text(), REPORT);
    assert_eq!(
        plain.header("content-length"),
        Some(&*REPORT.len().to_string())
    );

    let client = DecompressionLayer::new().layer(app);
    assert_eq!(send(&client, get(&at)).await.text(), REPORT);

    // Inside, the encoding that the submitter accepts is stored for every reader.
    let app = routes()
        .layer(CompressionLayer::new())
        .layer(AcceptedLayer::new());
    let accepted = send(&app, gzip(post("/a"))).await;
    ended(&app, &accepted).await;
    let result = result(&app, &accepted).await;
    assert_eq!(result.header("content-encoding"), Some("gzip"));
}

#[tokio::test(start_paused = true)]
async fn timeout_outside_ends_waits_but_no_job() {
    let timeout =
        TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(1));
    let jobs = Jobs::new();
    let later = When::After(Duration::from_secs(5));
    let app = routes().layer(jobs.layer().when(later)).layer(timeout);
    let started = Instant::now();
    let answer = send(&app, post("/a")).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!((started.elapsed().as_secs(), jobs.unfinished()), (1, 0));

    let app = routes().layer(jobs.layer()).layer(timeout);
    let accepted = send(&app, post("/a")).await;
    let mut wait = get(accepted.location());
    wait.headers_mut()
        .insert("prefer", "wait=30".parse().unwrap());
    let cut = send(&app, wait).await;
    assert_eq!(cut.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(ended(&app, &accepted).await["status"], "succeeded");

    // Inside, it limits the job, and its 504 is the result.
    let app = routes().layer(timeout).layer(jobs.layer());
    let accepted = send(&app, post("/a")).await;
    assert_eq!(ended(&app, &accepted).await["error"]["code"], "http_error");
    let result = result(&app, &accepted).await;
    assert_eq!(result.status, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn recommended_layers_work_in_one_builder() {
    let timeout = Duration::from_secs(1);
    let service = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(CorsLayer::permissive())
        .layer(CompressionLayer::new())
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            timeout,
        ))
        .layer(AcceptedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .service(inner(async |_| {
            sleep(Duration::from_secs(2)).await;
            ok(REPORT)
        }));
    let accepted = send(&service, cross_origin(gzip(post("/")))).await;
    assert_eq!(accepted.header("access-control-allow-origin"), Some("*"));
    ended(&service, &accepted).await;
    assert_eq!(result(&service, &accepted).await.text(), REPORT);
    let preflight = request("OPTIONS", accepted.location());
    let preflight = send(&service, cross_origin(preflight)).await;
    assert_eq!(
        (preflight.status, &*preflight.body),
        (StatusCode::OK, &b""[..])
    );
}

/// Lets a request with any credentials through.
async fn authorize(request: Request, next: Next) -> Response {
    if request.headers().contains_key("authorization") {
        next.run(request).await
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

#[tokio::test(start_paused = true)]
async fn authorization_goes_outside() {
    let authorized = |mut request: http::Request<Body>| {
        let token = "Bearer x".parse().unwrap();
        request.headers_mut().insert("authorization", token);
        request
    };
    let app = routes()
        .layer(AcceptedLayer::new())
        .layer(middleware::from_fn(authorize));
    let refused = send(&app, post("/a")).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let accepted = send(&app, authorized(post("/a"))).await;
    let at = accepted.location();
    assert_eq!(send(&app, get(at)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(send(&app, authorized(get(at))).await.status, StatusCode::OK);

    // Inside, the 401 is the result of a job, and the monitor answers every client.
    let app = routes()
        .layer(middleware::from_fn(authorize))
        .layer(AcceptedLayer::new());
    let accepted = send(&app, post("/a")).await;
    ended(&app, &accepted).await;
    assert_eq!(
        result(&app, &accepted).await.status,
        StatusCode::UNAUTHORIZED
    );
}

/// Records which span follows from which, by name.
#[derive(Clone, Default)]
struct Followed(Arc<Mutex<HashMap<&'static str, &'static str>>>);

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Followed {
    fn on_follows_from(
        &self,
        span: &tracing::span::Id,
        follows: &tracing::span::Id,
        context: Context<'_, S>,
    ) {
        let name = |id| context.span(id).unwrap().name();
        self.0.lock().unwrap().insert(name(span), name(follows));
    }
}

#[tokio::test(start_paused = true)]
async fn span_of_a_job_follows_from_the_request_span() {
    // With one subscriber, tracing asks only the thread that reaches a span first, and caches its
    // answer. That thread may belong to another test, which has no subscriber.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let followed = Followed::default();
    let subscriber = tracing_subscriber::registry().with(followed.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let app = routes().layer(AcceptedLayer::new()).layer(
        TraceLayer::new_for_http()
            .make_span_with(|_: &http::Request<Body>| tracing::error_span!("request")),
    );
    let accepted = send(&app, post("/a")).await;
    ended(&app, &accepted).await;
    assert_eq!(followed.0.lock().unwrap().get("job"), Some(&"request"));
}

tokio::task_local! {
    static TENANT: &'static str;
}

/// Sets a task-local value for the rest of the call.
async fn with_tenant(request: Request, next: Next) -> Response {
    TENANT.scope("blue", next.run(request)).await
}

/// Reads the task-local value at its start and two seconds later.
async fn tenant_twice() -> String {
    let tenant = || TENANT.try_with(|tenant| *tenant).unwrap_or("none");
    let first = tenant();
    sleep(Duration::from_secs(2)).await;
    format!("{first}, {}", tenant())
}

#[tokio::test(start_paused = true)]
async fn task_local_outside_vanishes_midway() {
    let accepting = || AcceptedLayer::new().when(When::After(Duration::from_secs(1)));
    let app = || Router::new().route("/", axum::routing::post(tenant_twice));
    let outside = app()
        .layer(accepting())
        .layer(middleware::from_fn(with_tenant));
    let inside = app()
        .layer(middleware::from_fn(with_tenant))
        .layer(accepting());
    for (app, expected) in [(outside, "blue, none"), (inside, "blue, blue")] {
        let accepted = send(&app, post("/")).await;
        ended(&app, &accepted).await;
        assert_eq!(result(&app, &accepted).await.text(), expected);
    }
}
