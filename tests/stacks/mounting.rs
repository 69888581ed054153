//! Positions of the layer in axum: the advice of the guide on mounting, and the effect of others.

use std::{collections::HashMap, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{MatchedPath, OriginalUri, Path, Query, State},
    routing::{get as on_get, post as on_post},
};
use http::{StatusCode, request::Parts};
use serde_json::Value;
use tokio::time::sleep;
use tower_accepted::{Jobs, Links, Owner, When};
use url::Url;

use crate::support::*;

/// Asserts that a request to `path` becomes a job, and that its links lead to the result.
async fn assert_reachable(app: &Router, path: &str) {
    let accepted = send(app, post(path)).await;
    let document = ended(app, &accepted).await;
    assert_eq!(document["status"], "succeeded", "{document}");
    let at = document["resourceLocation"].as_str().unwrap();
    let result = send(app, get(at)).await;
    assert_eq!(
        (result.status, result.text()),
        (StatusCode::CREATED, REPORT)
    );
}

/// Asserts that a request to `path` becomes a job whose links lead nowhere.
async fn assert_unreachable(app: &Router, path: &str) {
    let accepted = send(app, post(path)).await;
    let answer = send(app, get(accepted.location())).await;
    assert_ne!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test(start_paused = true)]
async fn router_is_layered_after_merge_and_fallback() {
    let jobs = Jobs::new();
    let app = Router::new()
        .route("/reports", slow())
        .merge(Router::new().route("/merged", slow()))
        .nest("/nested", Router::new().route("/reports", slow()))
        .fallback(render)
        .layer(jobs.layer());
    for path in ["/reports", "/merged", "/nested/reports", "/anything"] {
        assert_reachable(&app, path).await;
    }
}

#[tokio::test(start_paused = true)]
async fn router_without_fallback_serves_its_monitor() {
    let app = Router::new()
        .route("/reports", slow())
        .layer(Jobs::new().layer());
    assert_reachable(&app, "/reports").await;
}

#[tokio::test(start_paused = true)]
async fn router_is_layered_before_or_after_its_state() {
    let greet = async |State(name): State<&'static str>| (StatusCode::CREATED, name);
    let jobs = Jobs::new();
    let before = Router::new()
        .route("/", on_post(greet))
        .layer(jobs.layer())
        .with_state(REPORT);
    assert_reachable(&before, "/").await;
    let after = Router::new()
        .route("/", on_post(greet))
        .with_state(REPORT)
        .layer(jobs.layer());
    assert_reachable(&after, "/").await;
}

#[tokio::test(start_paused = true)]
async fn handler_in_a_job_extracts_the_same() {
    async fn handler(
        Path(name): Path<String>,
        Query(query): Query<HashMap<String, String>>,
        Extension(extension): Extension<u32>,
        path: MatchedPath,
        OriginalUri(uri): OriginalUri,
        Json(body): Json<Value>,
    ) -> String {
        sleep(Duration::from_secs(1)).await;
        format!(
            "{name} {} {extension} {} {uri} {body}",
            query["q"],
            path.as_str()
        )
    }
    let api = Router::new().route("/reports/{name}", on_post(handler));
    let app = Router::new().nest("/api", api);
    let app = app.layer(Jobs::new().layer()).layer(Extension(7_u32));
    let mut request = post("/api/reports/all?q=1").map(|_| Body::from("[true]"));
    let json = "application/json".parse().unwrap();
    request.headers_mut().insert("content-type", json);
    let accepted = send(&app, request).await;
    ended(&app, &accepted).await;
    assert_eq!(
        result(&app, &accepted).await.text(),
        "all 1 7 /api/reports/{name} /api/reports/all?q=1 [true]"
    );
}

#[tokio::test(start_paused = true)]
async fn after_zero_answers_404_and_405_inline() {
    let jobs = Jobs::new();
    let router = || Router::new().route("/reports", slow());
    let app = router().layer(jobs.layer().when(When::After(Duration::ZERO)));
    assert_reachable(&app, "/reports").await;
    let unknown = send(&app, post("/report")).await;
    let wrong = send(&app, request("PUT", "/reports")).await;
    assert_eq!(
        (unknown.status, wrong.status),
        (StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED)
    );
    assert_eq!(wrong.header("allow"), Some("POST"));

    // By default the 404 of the router is the result of a job.
    let app = router().layer(jobs.layer());
    let accepted = send(&app, post("/report")).await;
    assert_eq!(ended(&app, &accepted).await["error"]["code"], "http_error");
    assert_eq!(result(&app, &accepted).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn monitor_hides_routes_under_its_path() {
    let app = Router::new()
        .route("/jobs", on_get(async || "all jobs"))
        .route("/jobs/{name}", on_get(async || "one job"))
        .layer(Jobs::new().layer());
    assert_eq!(send(&app, get("/jobs")).await.text(), "all jobs");
    assert_eq!(
        send(&app, get("/jobs/1")).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(start_paused = true)]
async fn layer_on_one_route_needs_a_mounted_monitor() {
    let jobs = Jobs::new();
    let app = Router::new()
        .route("/reports", slow().layer(jobs.layer()))
        .route("/", on_get(async || "home"));
    assert_unreachable(&app, "/reports").await;

    let nested = app.clone().nest_service("/jobs", jobs.monitor());
    assert_reachable(&nested, "/reports").await;
    let routed = app.route_service("/jobs/{*rest}", jobs.monitor());
    assert_reachable(&routed, "/reports").await;
    assert_eq!(send(&routed, get("/")).await.text(), "home");
}

#[tokio::test(start_paused = true)]
async fn mounted_monitor_answers_every_request() {
    let jobs = Jobs::new();
    let app = Router::new()
        .route("/reports", slow().layer(jobs.layer()))
        .nest_service("/jobs", jobs.monitor());
    let accepted = send(&app, post("/reports")).await;
    ended(&app, &accepted).await;
    let at = accepted.location();
    let result = format!("{at}/result");
    let head = send(&app, request("HEAD", &result)).await;
    assert_eq!(
        head.header("content-length"),
        Some(&*REPORT.len().to_string())
    );
    for (method, path, status) in [
        ("OPTIONS", at, 204),
        ("PUT", at, 405),
        ("GET", "/jobs/x", 404),
        ("GET", "/jobs", 404),
        ("DELETE", at, 204),
        ("GET", at, 404),
    ] {
        let answer = send(&app, request(method, path)).await;
        assert_eq!(answer.status, status, "{method} {path}");
        let has_length = answer.headers.contains_key("content-length");
        assert_eq!(has_length, status != 204, "{method} {path}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn monitor_of_a_nested_router_is_mounted_on_top() {
    let jobs = Jobs::new();
    let api = Router::new().route("/reports", slow()).layer(jobs.layer());
    let app = Router::new().nest("/api", api);
    assert_unreachable(&app, "/api/reports").await;
    let app = app.nest_service("/jobs", jobs.monitor());
    assert_reachable(&app, "/api/reports").await;
}

#[tokio::test(start_paused = true)]
async fn monitor_can_be_mounted_under_the_prefix() {
    let jobs = Jobs::builder().monitor_path("/api/jobs").build();
    let api = Router::new().route("/reports", slow()).layer(jobs.layer());
    let app = Router::new()
        .nest("/api", api)
        .nest_service("/api/jobs", jobs.monitor());
    assert_reachable(&app, "/api/reports").await;
}

#[tokio::test(start_paused = true)]
async fn relative_links_lead_to_a_nested_monitor() {
    let jobs = Jobs::builder().links(Links::Relative).build();
    let routes = Router::new().route("/reports", slow());
    let layered = routes.clone().layer(jobs.layer());
    let mounted = routes
        .route_layer(jobs.layer())
        .nest_service("/jobs", jobs.monitor());
    for app in [
        Router::new().nest_service("/api", layered),
        Router::new().nest("/api", mounted),
    ] {
        let accepted = send(&app, post("/api/reports")).await;
        let from = Url::parse("http://host/api/reports").unwrap();
        let monitor = from.join(accepted.location()).unwrap();
        sleep(Duration::from_secs(3)).await;
        let document = send(&app, get(monitor.path())).await.json();
        let at = document["resourceLocation"].as_str().unwrap();
        let result = send(&app, get(monitor.join(at).unwrap().path())).await;
        assert_eq!(result.text(), REPORT);
    }
}

#[tokio::test(start_paused = true)]
async fn owners_list_is_at_the_mounted_monitor() {
    let one = |_: &Parts| Some(Owner::new("one"));
    let jobs = Jobs::builder().owner(one).build();
    let app = Router::new().route("/reports", slow().layer(jobs.layer()));
    let nested = app.clone().nest_service("/jobs", jobs.monitor());
    assert_eq!(send(&nested, get("/jobs")).await.status, StatusCode::OK);
    let routed = app.route_service("/jobs/{*rest}", jobs.monitor());
    let none = send(&routed, get("/jobs")).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    assert_reachable(&routed, "/reports").await;
}

#[tokio::test(start_paused = true)]
async fn layer_around_nested_routers_needs_no_mount() {
    let api = Router::new().route("/reports", slow());
    let app = Router::new().nest("/api", api).layer(Jobs::new().layer());
    assert_reachable(&app, "/api/reports").await;
}

#[tokio::test(start_paused = true)]
async fn links_of_a_nested_service_lack_the_prefix() {
    let jobs = Jobs::new();
    let api = Router::new().route("/reports", slow()).layer(jobs.layer());
    let app = Router::new().nest_service("/api", api);
    assert_unreachable(&app, "/api/reports").await;
    // The monitor is under the prefix.
    let accepted = send(&app, post("/api/reports")).await;
    let there = send(&app, get(&format!("/api{}", accepted.location()))).await;
    assert_eq!(there.status, StatusCode::OK);
    let app = app.nest_service("/jobs", jobs.monitor());
    assert_reachable(&app, "/api/reports").await;
}

#[tokio::test(start_paused = true)]
async fn route_layer_needs_a_mounted_monitor() {
    let jobs = Jobs::new();
    let app = Router::new()
        .route("/reports", slow())
        .route_layer(jobs.layer());
    assert_unreachable(&app, "/reports").await;
    let app = app.nest_service("/jobs", jobs.monitor());
    assert_reachable(&app, "/reports").await;
    // Its advantage: a request without a route does not become a job.
    let unknown = send(&app, post("/report")).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn later_fallback_replaces_the_monitor() {
    let jobs = Jobs::new();
    let layered = Router::new().route("/reports", slow()).layer(jobs.layer());
    let app = layered.clone().fallback(async || "the fallback");
    let accepted = send(&app, post("/reports")).await;
    let answer = send(&app, get(accepted.location())).await;
    assert_eq!(answer.text(), "the fallback");
    let app = app.nest_service("/jobs", jobs.monitor());
    assert_reachable(&app, "/reports").await;
}

#[tokio::test(start_paused = true)]
async fn merge_into_a_layered_router_drops_the_monitor() {
    let jobs = Jobs::new();
    let layered = || Router::new().route("/reports", slow()).layer(jobs.layer());
    let other = || Router::new().route("/", on_get(async || "home"));
    let app = layered().merge(other());
    assert_unreachable(&app, "/reports").await;
    assert_reachable(&app.nest_service("/jobs", jobs.monitor()), "/reports").await;
    // A router that had its own fallback before the layer keeps the monitor.
    let routes = Router::new().route("/reports", slow()).fallback(render);
    let app = routes.layer(jobs.layer()).merge(other());
    assert_reachable(&app, "/reports").await;
}

#[tokio::test(start_paused = true)]
async fn merged_layered_router_brings_monitor_and_404() {
    let jobs = Jobs::new();
    let routes = || Router::new().route("/reports", slow());
    let other = || Router::new().route("/", on_get(async || "home"));
    let app = other().merge(routes().layer(jobs.layer()));
    assert_reachable(&app, "/reports").await;
    // A request without a route in either router becomes a job.
    let unknown = send(&app, post("/unknown")).await;
    ended(&app, &unknown).await;
    assert_eq!(result(&app, &unknown).await.status, StatusCode::NOT_FOUND);

    let app = other().merge(routes().route_layer(jobs.layer()));
    let app = app.nest_service("/jobs", jobs.monitor());
    assert_reachable(&app, "/reports").await;
    let unknown = send(&app, post("/unknown")).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}
