//! Slow axum handlers behind the layer, added in each of four ways.
//!
//! ```text
//! cargo run --example axum_router [ADDRESS]
//! ```
//!
//! The default address is 127.0.0.1:3000; port 0 picks a free port. The example prints commands to
//! try. On Ctrl-C and SIGTERM it waits for its jobs.

use std::{convert::Infallible, env, io, net::SocketAddr, time::Duration};

use axum::{
    Form, Router,
    extract::FromRequestParts,
    http::{StatusCode, header, request::Parts},
    response::IntoResponse,
    routing::{get, post},
};
use serde::Deserialize;
use tokio::{net::TcpListener, time::sleep};
use tower::{ServiceBuilder, limit::GlobalConcurrencyLimitLayer};
use tower_accepted::{JobHandle, Jobs, When};

#[tokio::main]
async fn main() -> io::Result<()> {
    tracing_subscriber::fmt::init();
    let address = env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    let address = listener.local_addr()?;

    let jobs = Jobs::builder().max_unfinished(1_000).build();
    let app = Router::new()
        .merge(whole_router(&jobs))
        .merge(one_route(&jobs))
        .nest("/api", nested(&jobs))
        .merge(limited(&jobs))
        // All four share the registry, so one monitor serves them.
        .nest_service("/jobs", jobs.monitor())
        .route("/", get(async move || usage(address)));

    println!("Listening on http://{address}\n\n{}", usage(address));
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown(jobs))
        .await
}

/// Adds the layer to a whole router, after all routes and the fallback. If this were the only
/// router, the layer itself would serve the monitor.
///
/// With `After(ZERO)` an immediate response stays inline: the 404 of an unknown path, or the 422 of
/// a malformed form.
fn whole_router(jobs: &Jobs) -> Router {
    Router::new()
        .route("/reports", post(render_report))
        .route("/summaries", post(render_report))
        .layer(jobs.layer().when(When::After(Duration::ZERO)))
}

/// Adds the layer to one route. It does not see the path of the monitor, which therefore needs a
/// mount of its own. A response within 300 ms stays inline.
fn one_route(jobs: &Jobs) -> Router {
    let after_300_ms = When::After(Duration::from_millis(300));
    Router::new()
        .route(
            "/quotes",
            post(render_report).layer(jobs.layer().when(after_300_ms)),
        )
        .route("/health", get(async || "ok"))
}

/// Adds the layer to a nested router. The monitor is mounted on the outer router, because links are
/// paths from the root.
fn nested(jobs: &Jobs) -> Router {
    Router::new()
        .route("/reports", post(render_report))
        .layer(jobs.layer())
}

/// Adds the layer around a concurrency limit that two routes share. One report runs at a time; the
/// others are queued.
///
/// With `route_layer`, unknown paths still reach the router that this one is merged into.
fn limited(jobs: &Jobs) -> Router {
    Router::new()
        .route("/posters", post(render_report))
        .route("/banners", post(render_report))
        .route_layer(
            ServiceBuilder::new()
                .layer(jobs.layer())
                .layer(GlobalConcurrencyLimitLayer::new(1)),
        )
}

#[derive(Deserialize)]
struct Order {
    pages: u32,
}

/// Extracts the [`JobHandle`] of a request. Nothing is kept in the request's extensions: axum runs
/// extractors inside the call, so they find its handle.
struct Job(JobHandle);

impl<S: Sync> FromRequestParts<S> for Job {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(JobHandle::current()))
    }
}

/// Renders one page each second. It also works without the layer. The [`JobHandle`] is optional: it
/// gives the job a title, reports progress and lets the handler stop early.
async fn render_report(Job(job): Job, Form(order): Form<Order>) -> impl IntoResponse {
    job.title(format!("Report of {} pages", order.pages));
    let mut report = String::from("page,figure\n");
    for page in 1..=order.pages {
        job.message(format!("page {page} of {}", order.pages));
        tokio::select! {
            () = sleep(Duration::from_secs(1)) => {}
            () = job.canceled() => break,
        }
        report += &format!("{page},{}\n", page * page);
        job.progress(f64::from(page) / f64::from(order.pages));
    }
    let headers = [(header::CONTENT_TYPE, "text/csv")];
    (StatusCode::CREATED, headers, report)
}

/// Completes after a signal, once all jobs have ended and clients have fetched the results.
///
/// Until then the monitor answers, and new requests are answered inline.
async fn shutdown(jobs: Jobs) {
    wait_for_signal().await;
    println!("waiting for {} jobs", jobs.unfinished());
    let cut = jobs.drain(Duration::from_secs(30)).await;
    println!("{cut} jobs cut");
}

async fn wait_for_signal() {
    #[cfg(unix)]
    let sigterm = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut sigterm) => sigterm.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let sigterm = std::future::pending::<Option<()>>();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = sigterm => {}
    }
}

fn usage(address: SocketAddr) -> String {
    format!(
        "\
curl -i -d pages=10 http://{address}/reports      # 202 at once; its Location is the monitor
curl -i http://{address}/jobs/ID                  # the status and progress
curl -i http://{address}/jobs/ID/result           # the report, once the job has ended
curl -i -X POST http://{address}/jobs/ID/cancel   # stops the job
curl -i -d pages=many http://{address}/reports    # 422 at once: no job
curl -i -d pages=0 http://{address}/quotes        # 201 inline: takes less than 300 ms
curl -i -d pages=10 http://{address}/api/reports  # the same in a nested router
for page in posters banners posters; do curl -d pages=5 http://{address}/$page; done  # two queue
"
    )
}
