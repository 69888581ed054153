//! Tests the example `follow` against a server in this process.

#[expect(
    dead_code,
    reason = "the tests call neither `main` nor the progress bar"
)]
#[path = "../../examples/follow.rs"]
mod follow;

use std::{
    io::Write as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Json, Router, routing};
use bytes::Bytes;
use clap::Parser;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tower_accepted::AcceptedLayer;

use self::follow::{Arguments, Progress, run};

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// The result of a command: its exit code or error, its output and its progress lines.
struct CommandResult {
    code: Result<u8, String>,
    output: String,
    progress: String,
}

async fn command(arguments: &[&str]) -> CommandResult {
    let all = ["follow"].iter().chain(arguments);
    let arguments = Arguments::try_parse_from(all).expect("arguments");
    let (mut output, mut progress) = (Vec::new(), Vec::new());
    let code = run(arguments, &mut output, Progress::lines(&mut progress)).await;
    let text = |bytes| String::from_utf8(bytes).expect("text");
    CommandResult {
        code: code.map_err(|error| error.to_string()),
        output: text(output),
        progress: text(progress),
    }
}

#[tokio::test]
async fn command_writes_the_response_and_the_progress() {
    let polls = Arc::new(AtomicUsize::new(0));
    let status = move || async move {
        Json(match polls.fetch_add(1, Ordering::Relaxed) {
            0 => {
                json!({ "status": "running", "percentComplete": 40, "message": "page 4\u{1b}[2J" })
            }
            _ => json!({ "status": "succeeded", "resourceLocation": "/reports/1" }),
        })
    };
    let order = Arc::new(Mutex::new(Bytes::new()));
    let received = order.clone();
    let accept = move |headers: HeaderMap, body: Bytes| async move {
        assert_eq!(headers["content-type"], "text/plain");
        *received.lock().expect("no panic") = body;
        let location = [("operation-location", "/jobs/1"), ("retry-after", "0")];
        (
            StatusCode::ACCEPTED,
            location,
            Json(json!({ "status": "queued" })),
        )
    };
    let report = move || async move { order.lock().expect("no panic").clone() };
    let app = Router::new()
        .route("/reports", routing::post(accept))
        .route("/jobs/1", routing::get(status))
        .route("/reports/1", routing::get(report));
    let url = format!("http://{}/reports", serve(app).await);
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(b"all of March").expect("room");
    let data = format!("@{}", file.path().display());
    let result = command(&["POST", &url, "-d", &data, "-H", "Content-Type: text/plain"]).await;
    assert_eq!(result.code, Ok(0));
    assert_eq!(result.output, "all of March");
    assert_eq!(
        result.progress,
        "queued\n40 % running: page 4[2J\nsucceeded\n"
    );
}

#[tokio::test]
async fn exit_code_depends_on_the_status() {
    let nowhere = (StatusCode::ACCEPTED, "thank you");
    let app = Router::new()
        .route("/well", routing::get(|| async { "well" }))
        .route(
            "/missing",
            routing::get(|| async { (StatusCode::NOT_FOUND, "missing") }),
        )
        .route(
            "/broken",
            routing::get(|| async { (StatusCode::BAD_GATEWAY, "broken") }),
        )
        .route("/nowhere", routing::get(move || async move { nowhere }));
    let address = serve(app).await;
    for (path, code, output) in [
        ("well", 0, "well"),
        ("missing", 4, "missing"),
        ("broken", 5, "broken"),
        ("nowhere", 3, "thank you"),
    ] {
        let result = command(&["GET", &format!("http://{address}/{path}")]).await;
        assert_eq!((result.code, result.output.as_str()), (Ok(code), output));
        assert_eq!(result.progress, "");
    }
}

#[tokio::test]
async fn job_without_a_response_is_an_error() {
    async fn panics() {
        panic!("on purpose");
    }
    let app = Router::new().route("/reports", routing::post(panics));
    let address = serve(app.layer(AcceptedLayer::new())).await;
    let result = command(&["POST", &format!("http://{address}/reports"), "-d", "text"]).await;
    let error = result.code.expect_err("an error");
    assert!(error.starts_with("the job failed: panic: "), "{error}");
    assert_eq!(result.output, "");
}

#[test]
fn invalid_arguments_are_refused() {
    for arguments in [
        &["follow"][..],
        &["follow", "GET"],
        &["follow", "G T", "http://a/"],
        &["follow", "GET", "not an address"],
        &["follow", "GET", "http://a/", "-H", "no colon"],
        &["follow", "GET", "http://a/", "--timeout", "soon"],
    ] {
        assert!(
            Arguments::try_parse_from(arguments).is_err(),
            "{arguments:?}"
        );
    }
}
