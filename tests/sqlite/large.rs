//! A result that is larger than the memory of its process.

use std::{env, process::Command};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_accepted::{Jobs, RequestBody};

use crate::{
    site::{Home, boxed, layered, options, registry, wait_for_end},
    support::{Body, Failed, get, post, send},
};

/// The environment variable that makes [`limited_process`] do its work.
const LIMITED: &str = "ACCEPTED_LARGE_RESULT";

const RESULT_BYTES: usize = 1 << 30;
const CHUNK_BYTES: usize = 1 << 20;

/// The limit of the address space, in KiB.
const ADDRESS_SPACE_KIB: usize = 512 << 10;

/// Returns a chunk of the result, which depends on its place.
fn chunk(index: usize) -> Bytes {
    vec![(index % 251) as u8; CHUNK_BYTES].into()
}

#[test]
fn result_may_be_larger_than_memory() {
    let program = env::current_exe().unwrap();
    let status = Command::new("sh")
        .args([
            "-c",
            &format!("ulimit -v {ADDRESS_SPACE_KIB} && exec \"$0\" \"$@\""),
        ])
        .arg(program)
        .args([
            "large::limited_process",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .args(["--test-threads", "1"])
        .env(LIMITED, "1")
        .env("MALLOC_ARENA_MAX", "2")
        .output()
        .expect("sh runs");
    let output = String::from_utf8_lossy(&status.stderr);
    assert!(status.status.success(), "{output}");
    assert!(String::from_utf8_lossy(&status.stdout).contains("1 passed"));
}

/// This is no test: [`result_may_be_larger_than_memory`] starts it.
#[tokio::test]
#[ignore = "another test starts it with a limit"]
async fn limited_process() {
    if env::var_os(LIMITED).is_none() {
        return;
    }
    let home = Home::new(options());
    let builder = Jobs::builder().max_result(2 * RESULT_BYTES);
    let jobs = registry(builder.max_bytes(64 << 20), home.store().await);
    let service = boxed(|_: http::Request<RequestBody<Body>>| async {
        let chunks = (0..RESULT_BYTES / CHUNK_BYTES).map(|index| Ok::<_, Failed>(chunk(index)));
        Ok(http::Response::new(Body::from_stream(stream::iter(chunks))))
    });
    let site = layered(&jobs, service);
    let location = send(&site, post("/it")).await.location().to_owned();
    let document = wait_for_end(&site, &location).await.json();
    assert_eq!(document["response"]["contentLength"], RESULT_BYTES);
    let response = site.oneshot(get(&format!("{location}/result"))).await;
    let mut body = response.unwrap().into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.unwrap().into_data() else {
            continue;
        };
        for (offset, &byte) in data.iter().enumerate().step_by(4_096) {
            assert_eq!(byte, ((length + offset) / CHUNK_BYTES % 251) as u8);
        }
        length += data.len();
    }
    assert_eq!(length, RESULT_BYTES);
}
