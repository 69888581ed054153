//! Ordinary axum handlers that are slow, behind the layer in the four ways to put it there.
//!
//! ```text
//! cargo run --example axum_router [ADDRESS]
//! ```
//!
//! The address is 127.0.0.1:3000 where none is given; port 0 takes a free one. It prints what to try.
//! Ctrl-C and SIGTERM let the jobs finish first.

use std::{env, io, net::SocketAddr, time::Duration};

use axum::{
    Form, Router,
    http::{StatusCode, header},
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
        // One monitor for all of them, since they share a registry.
        .nest_service("/jobs", jobs.monitor())
        .route("/", get(async move || usage(address)));

    println!("Listening on http://{address}\n\n{}", usage(address));
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown(jobs))
        .await
}

/// The layer on a whole router, put there last, after all routes and the fallback. Served alone, it
/// needs no mount for its monitor.
///
/// `After(ZERO)` lets what is ready at once be an ordinary answer: the 404 of an unknown path, the 422
/// of a malformed form.
fn whole_router(jobs: &Jobs) -> Router {
    Router::new()
        .route("/reports", post(render_report))
        .route("/summaries", post(render_report))
        .layer(jobs.layer().when(When::After(Duration::ZERO)))
}

/// The layer on one route among others. It never sees the path of the monitor, which is mounted by
/// itself. Who is served within 300 ms never hears of a job.
fn one_route(jobs: &Jobs) -> Router {
    let patient = When::After(Duration::from_millis(300));
    Router::new()
        .route(
            "/quotes",
            post(render_report).layer(jobs.layer().when(patient)),
        )
        .route("/health", get(async || "well"))
}

/// The layer on a router that is nested. The monitor is mounted at the top, where the links lead.
fn nested(jobs: &Jobs) -> Router {
    Router::new()
        .route("/reports", post(render_report))
        .layer(jobs.layer())
}

/// The layer around a limit, both in one `ServiceBuilder`: one report at a time, whichever of the two
/// routes it came by, and the rest is shown as queued.
///
/// As a `route_layer` it leaves paths that have no route to the router this one is merged into.
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

/// Takes a second a page. It would do without the layer, and without the [`JobHandle`] too: that is
/// for who wants to tell how far it is, and to stop early.
async fn render_report(Form(order): Form<Order>) -> impl IntoResponse {
    let job = JobHandle::current();
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

/// Completes when the server is to stop: somebody has asked for it, and no job is left.
///
/// The monitor answers all the while; what comes new is refused.
async fn shutdown(jobs: Jobs) {
    asked_to_stop().await;
    println!("waiting for {} jobs", jobs.unfinished());
    let cut = jobs.drain(Duration::from_secs(30)).await;
    println!("{cut} jobs cut");
}

async fn asked_to_stop() {
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => terminated.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<Option<()>>();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
}

fn usage(address: SocketAddr) -> String {
    format!(
        "\
curl -i -d pages=10 http://{address}/reports      # 202 at once; its Location is the monitor
curl -i http://{address}/jobs/ID                  # how far it is
curl -i http://{address}/jobs/ID/result           # the report, when it is done
curl -i -X POST http://{address}/jobs/ID/cancel   # enough of it
curl -i -d pages=many http://{address}/reports    # 422 at once: no job
curl -i -d pages=0 http://{address}/quotes        # 201 at once: done within 300 ms
curl -i -d pages=10 http://{address}/api/reports  # the same under a nest
for page in posters banners posters; do curl -d pages=5 http://{address}/$page; done   # two wait
"
    )
}
