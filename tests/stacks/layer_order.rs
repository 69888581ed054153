//! What goes outside this layer and what inside: the advice of the `mounting` page, line by line,
//! and what comes of not following it.

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

/// Two routes that share nothing but their layers.
fn routes() -> Router {
    Router::new().route("/a", slow()).route("/b", slow())
}

/// Submits a job to each of the routes, and tells how they stand a second later.
async fn a_second_in(app: &Router) -> [String; 2] {
    let [a, b] = [send(app, post("/a")).await, send(app, post("/b")).await];
    sleep(Duration::from_secs(1)).await;
    [status(app, &a).await, status(app, &b).await]
}

async fn status(app: &Router, accepted: &Answer) -> String {
    let document = send(app, get(accepted.location())).await.json();
    document["status"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_global_limit_inside_in_one_builder_queues_the_rest() {
    let app = routes().layer(
        ServiceBuilder::new()
            .layer(AcceptedLayer::new())
            .layer(GlobalConcurrencyLimitLayer::new(1)),
    );
    assert_eq!(a_second_in(&app).await, ["running", "queued"]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_not_global_is_one_for_each_route() {
    let app = routes().layer(
        ServiceBuilder::new()
            .layer(AcceptedLayer::new())
            .layer(ConcurrencyLimitLayer::new(1)),
    );
    assert_eq!(a_second_in(&app).await, ["running", "running"]);
    let third = send(&app, post("/a")).await;
    assert_eq!(status(&app, &third).await, "queued");
}

#[tokio::test(start_paused = true)]
async fn between_two_calls_of_layer_a_job_that_waits_is_shown_as_running() {
    let app = routes()
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .layer(AcceptedLayer::new());
    assert_eq!(a_second_in(&app).await, ["running", "running"]);
    // The limit holds all the same.
    sleep(Duration::from_secs(2)).await;
    let started = Instant::now();
    let one = send(&app, post("/a")).await;
    let other = send(&app, post("/b")).await;
    ended(&app, &one).await;
    ended(&app, &other).await;
    assert!(
        started.elapsed() >= Duration::from_secs(4),
        "at the same time"
    );
}

#[tokio::test(start_paused = true)]
async fn a_limit_outside_holds_nothing_back_but_the_202() {
    let app = routes().layer(
        ServiceBuilder::new()
            .layer(GlobalConcurrencyLimitLayer::new(1))
            .layer(AcceptedLayer::new()),
    );
    assert_eq!(a_second_in(&app).await, ["running", "running"]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_goes_inside_behind_a_buffer() {
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
    // What the buffer has taken counts as running.
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
async fn what_fails_inside_a_router_with_an_error_is_handled_outside() {
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
    // Load that is shed inside is a job that was accepted and then failed.
    assert_eq!(ended(&app, &other).await["error"]["code"], "inner_error");
}

#[tokio::test(start_paused = true)]
async fn load_shed_outside_fails_no_job_and_the_registry_refuses_what_is_too_much() {
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

/// Tries again what has failed, so many times.
#[derive(Clone)]
struct Tries(usize);

impl<Rq: Clone, B, E> retry::Policy<Rq, http::Response<B>, E> for Tries {
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
async fn a_retry_goes_inside_and_the_job_ends_with_the_last_try() {
    // The body has been read, so this waits for nothing; what it makes can be cloned.
    let whole = async |request: http::Request<RequestBody<Body>>| {
        let (head, body) = request.into_parts();
        let body = Full::new(body.collect().await?.to_bytes());
        Ok::<_, axum::Error>(http::Request::from_parts(head, body))
    };
    let calls = Counter::default();
    let service = ServiceBuilder::new()
        .layer(AcceptedLayer::new())
        .filter_async(whole)
        .retry(Tries(4))
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

/// What a page of another origin needs to read of this layer's answers.
const EXPOSED: [HeaderName; 7] = [
    header::LOCATION,
    HeaderName::from_static("operation-location"),
    header::LINK,
    header::RETRY_AFTER,
    header::ETAG,
    HeaderName::from_static("asyncresult"),
    HeaderName::from_static("preference-applied"),
];

fn from_elsewhere(mut request: http::Request<Body>) -> http::Request<Body> {
    let origin = "https://elsewhere.example".parse().unwrap();
    request.headers_mut().insert("origin", origin);
    request
}

#[tokio::test(start_paused = true)]
async fn cors_goes_outside_and_exposes_what_the_layer_says() {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([http::Method::POST, http::Method::DELETE])
        .expose_headers(EXPOSED);
    let app = routes().layer(AcceptedLayer::new()).layer(cors.clone());
    let accepted = send(&app, from_elsewhere(post("/a"))).await;
    ended(&app, &accepted).await;
    let at = accepted.location().to_owned();
    let document = send(&app, from_elsewhere(get(&at))).await;
    let result = send(&app, from_elsewhere(get(&format!("{at}/result")))).await;
    for answer in [&accepted, &document, &result] {
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in EXPOSED {
            assert!(exposed.split(',').any(|exposed| exposed == name), "{name}");
        }
    }
    let mut preflight = from_elsewhere(request("OPTIONS", &at));
    let method = "DELETE".parse().unwrap();
    preflight
        .headers_mut()
        .insert("access-control-request-method", method);
    let allowed = send(&app, preflight).await;
    assert_eq!(
        allowed.header("access-control-allow-methods"),
        Some("POST,DELETE")
    );

    // Inside, it is not asked for what the layer itself answers.
    let app = routes().layer(cors).layer(AcceptedLayer::new());
    let accepted = send(&app, from_elsewhere(post("/a"))).await;
    assert_eq!(accepted.header("access-control-allow-origin"), None);
}

fn gzip(mut request: http::Request<Body>) -> http::Request<Body> {
    let gzip = "gzip".parse().unwrap();
    request.headers_mut().insert("accept-encoding", gzip);
    request
}

#[tokio::test(start_paused = true)]
async fn compression_goes_outside_for_each_reader_by_itself() {
    let app = routes()
        .layer(AcceptedLayer::new())
        .layer(CompressionLayer::new());
    let accepted = send(&app, gzip(post("/a"))).await;
    assert_eq!(accepted.header("content-encoding"), Some("gzip"));
    ended(&app, &accepted).await;
    let at = format!("{}/result", accepted.location());
    let packed = send(&app, gzip(get(&at))).await;
    let unpacked = send(&app, get(&at)).await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(unpacked.header("content-encoding"), None);
    assert_eq!(unpacked.text(), REPORT);
    assert_eq!(
        unpacked.header("content-length"),
        Some(&*REPORT.len().to_string())
    );

    let client = DecompressionLayer::new().layer(app);
    assert_eq!(send(&client, get(&at)).await.text(), REPORT);

    // Inside, who submitted the job chooses for everyone.
    let app = routes()
        .layer(CompressionLayer::new())
        .layer(AcceptedLayer::new());
    let accepted = send(&app, gzip(post("/a"))).await;
    ended(&app, &accepted).await;
    let result = result(&app, &accepted).await;
    assert_eq!(result.header("content-encoding"), Some("gzip"));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_outside_cuts_the_inline_phase_and_a_wait_and_no_job() {
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

    // Inside it is the job's, and its answer the result.
    let app = routes().layer(timeout).layer(jobs.layer());
    let accepted = send(&app, post("/a")).await;
    assert_eq!(ended(&app, &accepted).await["error"]["code"], "http_error");
    let result = result(&app, &accepted).await;
    assert_eq!(result.status, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn all_of_them_fit_together_in_one_builder() {
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
    let accepted = send(&service, from_elsewhere(gzip(post("/")))).await;
    assert_eq!(accepted.header("access-control-allow-origin"), Some("*"));
    ended(&service, &accepted).await;
    assert_eq!(result(&service, &accepted).await.text(), REPORT);
    let preflight = request("OPTIONS", accepted.location());
    let preflight = send(&service, from_elsewhere(preflight)).await;
    assert_eq!(
        (preflight.status, &*preflight.body),
        (StatusCode::OK, &b""[..])
    );
}

/// Lets pass who has any credentials.
async fn authorize(request: Request, next: Next) -> Response {
    match request.headers().contains_key("authorization") {
        true => next.run(request).await,
        false => StatusCode::UNAUTHORIZED.into_response(),
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

    // Inside, the refusal is a job's result, and the monitor answers anyone.
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

/// Remembers which span follows from which, by name.
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
async fn a_jobs_span_follows_from_the_span_of_a_trace_outside() {
    // While there is one subscriber only, tracing asks the thread that first comes to a span whether
    // anybody wants it; that may be another test's, which has none.
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
