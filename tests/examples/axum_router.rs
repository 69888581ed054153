//! The example `axum_router`.

use http::StatusCode;

use crate::{
    client::{Answer, ended, get, post, request, result, send},
    program::Program,
};

/// More pages than a test can wait for.
const MANY_PAGES: &str = "pages=1000";

#[tokio::test]
async fn every_mount_of_the_layer_accepts_a_report() {
    let server = Program::start("axum_router", &["127.0.0.1:0"]).await;
    for path in [
        "/reports",
        "/summaries",
        "/quotes",
        "/api/reports",
        "/posters",
    ] {
        let job = form(&server, path, MANY_PAGES).await.job();
        let document = get(server.address, &job).await.json();
        assert!(
            ["queued", "running"].contains(&document["status"].as_str().expect("text")),
            "{path}: {document}"
        );
        post(server.address, &format!("{job}/cancel"), "").await;
    }
    let job = form(&server, "/api/reports", "pages=1").await.job();
    let result = result(server.address, &job).await;
    assert_eq!(result.status, StatusCode::CREATED);
    assert_eq!(result.header("content-type"), Some("text/csv"));
    assert_eq!(result.body, "page,figure\n1,1\n");
}

#[tokio::test]
async fn immediate_response_stays_inline() {
    let server = Program::start("axum_router", &["127.0.0.1:0"]).await;
    for (path, pages, status) in [
        ("/reports", "pages=0", StatusCode::CREATED),
        ("/reports", "pages=many", StatusCode::UNPROCESSABLE_ENTITY),
        ("/quotes", "pages=0", StatusCode::CREATED),
        ("/nowhere", "pages=1", StatusCode::NOT_FOUND),
        ("/health", "", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = form(&server, path, pages).await;
        assert_eq!(answer.status, status, "{path} {pages}");
    }
    assert_eq!(get(server.address, "/health").await.body, "ok");
}

#[tokio::test]
async fn posters_and_banners_run_one_at_a_time() {
    let server = Program::start("axum_router", &["127.0.0.1:0"]).await;
    let first = form(&server, "/posters", MANY_PAGES).await.job();
    while get(server.address, &first).await.json()["status"] != "running" {}
    let second = form(&server, "/banners", MANY_PAGES).await.job();
    let third = form(&server, "/posters", "pages=0").await.job();
    for queued in [&second, &third] {
        let document = get(server.address, queued).await.json();
        assert_eq!(document["status"], "queued", "{document}");
    }
    for canceled in [&first, &second] {
        post(server.address, &format!("{canceled}/cancel"), "").await;
    }
    assert_eq!(ended(server.address, &third).await["status"], "succeeded");
}

#[tokio::test]
async fn signals_wait_for_jobs_and_serve_their_monitor() {
    for signal in ["INT", "TERM"] {
        let mut server = Program::start("axum_router", &["127.0.0.1:0"]).await;
        let job = form(&server, "/reports", MANY_PAGES).await.job();
        server.signal(signal).await;
        while server.line().await.expect("more") != "waiting for 1 jobs" {}
        assert_eq!(get(server.address, &job).await.json()["status"], "running");
        post(server.address, &format!("{job}/cancel"), "").await;
        assert_eq!(server.line().await.as_deref(), Some("0 jobs cut"));
        assert_eq!(server.ended().await.code(), Some(0));
    }
}

async fn form(server: &Program, path: &str, fields: &'static str) -> Answer {
    let request = request("POST", path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(fields.into())
        .expect("a request");
    send(server.address, request).await
}
