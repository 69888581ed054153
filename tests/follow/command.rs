//! The example `follow`, against a server in process.

#[expect(
    dead_code,
    reason = "the example's own main, and its bar for a terminal"
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

/// What the command gives: its exit code or error, its output, and what it says on the way.
struct Given {
    code: Result<u8, String>,
    output: String,
    told: String,
}

async fn command(arguments: &[&str]) -> Given {
    let all = ["follow"].iter().chain(arguments);
    let arguments = Arguments::try_parse_from(all).expect("arguments");
    let (mut output, mut told) = (Vec::new(), Vec::new());
    let code = run(arguments, &mut output, Progress::lines(&mut told)).await;
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Given {
        code: code.map_err(|error| error.to_string()),
        output: text(output),
        told: text(told),
    }
}

#[tokio::test]
async fn the_command_writes_the_final_response_and_says_how_far_the_job_is() {
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
    let ordered = order.clone();
    let accept = move |headers: HeaderMap, body: Bytes| async move {
        assert_eq!(headers["content-type"], "text/plain");
        *ordered.lock().expect("no panic") = body;
        let location = [("operation-location", "/jobs/1"), ("retry-after", "0")];
        (
            StatusCode::ACCEPTED,
            location,
            Json(json!({ "status": "queued" })),
        )
    };
    let result = move || async move { order.lock().expect("no panic").clone() };
    let app = Router::new()
        .route("/reports", routing::post(accept))
        .route("/jobs/1", routing::get(status))
        .route("/reports/1", routing::get(result));
    let url = format!("http://{}/reports", serve(app).await);
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(b"all of March").expect("room");
    let data = format!("@{}", file.path().display());
    let given = command(&["POST", &url, "-d", &data, "-H", "Content-Type: text/plain"]).await;
    assert_eq!(given.code, Ok(0));
    assert_eq!(given.output, "all of March");
    assert_eq!(given.told, "queued\n40 % running: page 4[2J\nsucceeded\n");
}

#[tokio::test]
async fn the_exit_code_tells_the_status() {
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
        let given = command(&["GET", &format!("http://{address}/{path}")]).await;
        assert_eq!((given.code, given.output.as_str()), (Ok(code), output));
        assert_eq!(given.told, "");
    }
}

#[tokio::test]
async fn a_job_without_a_response_is_an_error() {
    async fn panics() {
        panic!("on purpose");
    }
    let app = Router::new().route("/reports", routing::post(panics));
    let address = serve(app.layer(AcceptedLayer::new())).await;
    let given = command(&["POST", &format!("http://{address}/reports"), "-d", "text"]).await;
    let error = given.code.expect_err("an error");
    assert!(error.starts_with("the job failed: panic: "), "{error}");
    assert_eq!(given.output, "");
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
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
