//! Owners of jobs: `--owner-header`.

use http::StatusCode;

use crate::{
    client::{get, request, send},
    program::Program,
    upstream::Upstream,
};

#[tokio::test]
async fn owner_header_binds_a_job_to_its_value() {
    let upstream = Upstream::start().await;
    let flags = ["--always", "--owner-header", "X-User"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let ask = async |method: &str, path: &str, user: &str| {
        let request = request(method, path).header("x-user", user);
        let request = request.body(http_body_util::Full::default());
        send(gateway.address, request.expect("a request")).await
    };
    let job = ask("POST", "/reports", "me").await.job();
    assert_eq!(ask("GET", &job, "me").await.status, StatusCode::OK);
    assert_eq!(ask("GET", &job, "you").await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        get(gateway.address, &job).await.status,
        StatusCode::NOT_FOUND
    );
    let list = ask("GET", "/jobs", "me").await.json();
    assert_eq!(list["jobs"][0]["self"], job);
}

#[tokio::test]
async fn owner_is_named_once_or_not_at_all() {
    let upstream = Upstream::start().await;
    let flags = ["--always", "--owner-header", "X-User"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let ask = async |method: &str, path: &str, users: &[&str]| {
        let mut request = request(method, path);
        for user in users {
            request = request.header("x-user", *user);
        }
        send(gateway.address, request.body("".into()).expect("a request")).await
    };
    let twice = ask("POST", "/reports", &["me", "you"]).await;
    assert_eq!(twice.status, StatusCode::BAD_REQUEST);
    let twice = ask("GET", "/jobs", &["me", "me"]).await;
    assert_eq!(twice.status, StatusCode::BAD_REQUEST);

    // A job of an empty owner would be shared by all requests without a user.
    let job = ask("POST", "/reports", &[""]).await.job();
    assert_eq!(ask("GET", &job, &[]).await.status, StatusCode::OK);
    let list = ask("GET", "/jobs", &[""]).await;
    assert_eq!(list.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn owner_lists_jobs_during_a_shutdown() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--owner-header", "X-User"];
    let mut gateway = Program::gateway(upstream.address, &flags).await;
    let ask = async |gateway: &Program, method: &str, path: &str| {
        let request = request(method, path).header("x-user", "me");
        send(gateway.address, request.body("".into()).expect("a request")).await
    };
    let job = ask(&gateway, "POST", "/reports").await.job();
    let received = upstream.next().await;
    gateway.signal("TERM").await;
    gateway.logged("shutting down").await;
    let list = ask(&gateway, "GET", "/jobs").await.json();
    assert_eq!(list["jobs"][0]["self"], job);
    received.ok("report").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
}
