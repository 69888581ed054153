//! An axum service as a team would run it: slow work behind the usual layers, with users, required
//! keys, and a shutdown that loses no result.
//!
//! ```text
//! cargo run --example production        # optionally with an address; --help lists the flags
//!
//! url=http://127.0.0.1:3000 alice='authorization: Bearer alice-token'
//! curl -i -H "$alice" -d pages=10 $url/reports               # 202; its Location is the monitor
//! curl -H "$alice" $url/jobs/ID                              # the title and the progress
//! curl -H "$alice" --compressed $url/jobs/ID/result          # the report, once the job has ended
//! curl -X POST -H "$alice" $url/jobs/ID/cancel               # stops the blocking work
//! curl -H "$alice" $url/jobs                                 # all jobs of alice
//! curl -i -H 'authorization: Bearer bob-token' $url/jobs/ID  # 404: it is not a job of bob
//! curl -i -H "$alice" -d amount=5 $url/payments              # 400: the key is missing
//! curl -i -H "$alice" -H 'idempotency-key: order-7' -d amount=5 $url/payments  # charges once
//! ```
//!
//! On Ctrl-C and SIGTERM it refuses new jobs, and serves the monitor until all jobs have ended and
//! clients have fetched the results.

use std::{
    future::IntoFuture,
    io,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use axum::{
    Extension, Form, Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use clap::Parser;
use serde::Deserialize;
use tokio::{net::TcpListener, select, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_accepted::{Idempotency, JobHandle, Jobs, Owner, When};
use tower_http::{
    compression::CompressionLayer,
    cors::CorsLayer,
    timeout::TimeoutLayer,
    trace::{DefaultMakeSpan, TraceLayer},
};
use tracing::{Level, info};
use tracing_subscriber::EnvFilter;

/// The origin whose pages may call the service.
const APP_ORIGIN: &str = "https://app.example";

/// The users and their tokens. In production this is a table of hashes, or the check of a JWT.
const TOKENS: [(&str, &str); 2] = [("alice-token", "alice"), ("bob-token", "bob")];

/// The time that jobs and the clients of their results have after a signal.
///
/// Whatever stops the process must wait longer before it kills it: for this time and the timeout of
/// requests. For Kubernetes that is `terminationGracePeriodSeconds`, 30 by default.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The header fields that a page of another origin needs: see the guide to mounting.
const EXPOSED: [&str; 13] = [
    "location",
    "operation-location",
    "link",
    "retry-after",
    "etag",
    "asyncresult",
    "preference-applied",
    "idempotent-replayed",
    "x-progress",
    "content-location",
    "content-range",
    "content-disposition",
    "allow",
];

/// Serves reports and payments
#[derive(Debug, Parser)]
struct Arguments {
    /// The address to listen on
    #[arg(default_value = "127.0.0.1:3000")]
    address: String,
    /// The maximum time until a request is answered, in seconds
    #[arg(long, default_value_t = 10)]
    timeout_secs: u64,
    /// The time that a page of a report takes, in milliseconds
    #[arg(long, default_value_t = 1000)]
    page_ms: u64,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let filter = EnvFilter::builder().with_default_directive(Level::INFO.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_writer(io::stderr)
        .init();
    let arguments = Arguments::parse();
    let timeout = Duration::from_secs(arguments.timeout_secs);
    let jobs = Jobs::builder()
        // Without this, a job is visible to every client that knows its address.
        .owner(|head| head.extensions.get::<User>().map(|user| Owner::new(user.0)))
        .max_unfinished_per_owner(100)
        // Fewer than the threads that tokio starts for blocking work, which are 512.
        .max_unfinished(500)
        // At the limit and during a drain, short reports are refused too: each takes a thread.
        .shed_when_full(true)
        // `Prefer: wait` must be answered before the timeout layer answers.
        .max_wait(timeout / 2)
        .allow_cancel_from(|origin| origin == APP_ORIGIN)
        .build();
    let page_time = Duration::from_millis(arguments.page_ms);
    let app = app(&jobs, timeout).with_state(page_time);

    let signal = catch_signals()?;
    let listener = TcpListener::bind(&arguments.address).await?;
    println!("Listening on http://{}", listener.local_addr()?);
    serve(listener, app, jobs, timeout, signal).await
}

fn app(jobs: &Jobs, timeout: Duration) -> Router<Duration> {
    // Malformed forms and short reports get ordinary responses.
    let layer = jobs.layer().when(When::After(Duration::from_millis(300)));
    let once = Idempotency::new().required(true);
    Router::new()
        .route("/reports", post(render_report).layer(layer.clone()))
        .route("/payments", post(pay).layer(layer.idempotency(once)))
        // A layer on one route does not receive requests for the monitor.
        .nest_service("/jobs", jobs.monitor())
        .layer(
            // The first is the outermost. The guide to mounting has the reason for each place. All
            // are outside the layer that accepts jobs, so they apply to its 202 and to the monitor.
            // None limits the time of a job.
            ServiceBuilder::new()
                .layer(TraceLayer::new_for_http().make_span_with(span()))
                // Outside of authentication, because a preflight has no token.
                .layer(cors())
                .layer(from_fn(authenticate))
                .layer(CompressionLayer::new())
                .layer(TimeoutLayer::with_status_code(
                    StatusCode::REQUEST_TIMEOUT,
                    timeout,
                )),
        )
        // Added last, so that no layer applies: a probe has no token.
        .route("/health", get(async || "ok"))
}

/// Creates the span of a request, which has the event that a job was accepted, and its id.
fn span() -> DefaultMakeSpan {
    DefaultMakeSpan::new().level(Level::INFO)
}

fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(HeaderValue::from_static(APP_ORIGIN))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("prefer"),
        ])
        .expose_headers(EXPOSED.map(HeaderName::from_static))
}

/// The user that a request comes from. It owns the jobs of the request.
#[derive(Debug, Clone, Copy)]
struct User(&'static str);

/// Refuses requests without a valid token. The others get their [`User`] as an extension.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION);
    let token = authorization
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .unwrap_or_default();
    let Some((_, user)) = TOKENS.into_iter().find(|(known, _)| *known == token) else {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    };
    request.extensions_mut().insert(User(user));
    next.run(request).await
}

#[derive(Debug, Deserialize)]
struct Report {
    pages: u32,
}

/// Renders a report on a blocking thread, which a canceled job stops.
async fn render_report(
    State(page_time): State<Duration>,
    Form(report): Form<Report>,
) -> Result<impl IntoResponse, StatusCode> {
    let job = JobHandle::current();
    job.title(format!("Report of {} pages", report.pages));
    let stop = job.token();
    let rendering = spawn_blocking(move || {
        render_pages(report.pages, page_time, &stop, |page| {
            job.message(format!("page {page} of {}", report.pages));
            job.progress(f64::from(page) / f64::from(report.pages));
        })
    });
    match rendering.await {
        Ok(Some(csv)) => Ok(([(header::CONTENT_TYPE, "text/csv")], csv)),
        // No client reads this.
        Ok(None) => Err(StatusCode::SERVICE_UNAVAILABLE),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// Renders pages until `stop` is canceled. This code blocks, and knows nothing of HTTP or jobs.
fn render_pages(
    pages: u32,
    page_time: Duration,
    stop: &CancellationToken,
    on_page: impl Fn(u32),
) -> Option<String> {
    info!("rendering {pages} pages");
    let mut csv = String::from("page,figure\n");
    for page in 1..=pages {
        if stop.is_cancelled() {
            info!("stopped before page {page}");
            return None;
        }
        thread::sleep(page_time);
        csv += &format!("{page},{}\n", u64::from(page).pow(2));
        on_page(page);
    }
    Some(csv)
}

#[derive(Debug, Deserialize)]
struct Payment {
    amount: u32,
}

/// Charges a user. A client that repeats its request with the same key is not charged again.
async fn pay(Extension(user): Extension<User>, Form(payment): Form<Payment>) -> impl IntoResponse {
    static RECEIPTS: AtomicU64 = AtomicU64::new(1);
    JobHandle::current().title(format!("Payment of {}", payment.amount));
    sleep(Duration::from_secs(1)).await;
    // `Relaxed`, since the number guards no other data.
    let number = RECEIPTS.fetch_add(1, Ordering::Relaxed);
    let receipt = format!("receipt {number}: {} paid {}\n", user.0, payment.amount);
    (StatusCode::CREATED, receipt)
}

/// Serves until a signal. Then it drains the jobs while the server still answers, and closes.
async fn serve(
    listener: TcpListener,
    app: Router,
    jobs: Jobs,
    timeout: Duration,
    signal: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let drained = CancellationToken::new();
    let server = axum::serve(listener, app).with_graceful_shutdown({
        let drained = drained.clone();
        async move {
            signal.await;
            info!("shutting down: {} jobs are unfinished", jobs.unfinished());
            let cut = jobs.drain(DRAIN_TIMEOUT).await;
            info!("drained: {cut} jobs were cut");
            drained.cancel();
        }
    });
    // Every request that was received before has the time that it always has. A client that stalls
    // cannot keep the process alive.
    let closing = async {
        drained.cancelled().await;
        sleep(timeout).await;
    };
    select! {
        served = server.into_future() => served,
        () = closing => Ok(()),
    }
}

/// Catches Ctrl-C and SIGTERM from now on. The future completes at the first of them.
#[cfg(unix)]
fn catch_signals() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Returns a future that completes at Ctrl-C.
#[cfg(not(unix))]
fn catch_signals() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
