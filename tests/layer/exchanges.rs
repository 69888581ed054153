//! Compares the exchanges in the documentation with real ones.

use std::{fmt::Write, time::Duration};

use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{Dialect, JobHandle, Jobs};

use crate::support::*;

/// Formats a request and its response as on the wire.
fn exchange(request: &http::Request<Body>, answer: &Answer) -> String {
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
    }
    writeln!(text, "\nHTTP/1.1 {}", answer.status).unwrap();
    for (name, value) in &answer.headers {
        writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
    }
    if !answer.body.is_empty() {
        // On the wire, a document is one line, which is too long for a page.
        let body = answer.text().replace(",\"", ",\n \"");
        write!(text, "\n{body}\n").unwrap();
    }
    text
}

/// Returns the exchanges of one job, from the 202 to its result.
async fn conversation(dialect: Dialect) -> String {
    let service = Jobs::builder()
        .dialect(dialect)
        .build()
        .layer()
        .layer(inner(async |_| {
            JobHandle::current().progress(0.4);
            JobHandle::current().message("page 4 of 10");
            sleep(Duration::from_secs(5)).await;
            let response = http::Response::builder().header("content-type", "text/plain");
            Ok(response.body(Body::from("the report")).unwrap())
        }));
    let report = || with(post("/reports"), &[("prefer", "respond-async")]);
    let accepted = send(&service, report()).await;
    let mut text = exchange(&report(), &accepted);
    let mut show = async |path: &str| {
        let answer = send(&service, get(path)).await;
        write!(text, "\n\n{}", exchange(&get(path), &answer)).unwrap();
    };
    let monitor = accepted.location();
    sleep(Duration::from_secs(1)).await;
    show(monitor).await;
    sleep(Duration::from_secs(5)).await;
    show(monitor).await;
    if dialect != Dialect::Pending202 {
        show(&format!("{monitor}/result")).await;
    }
    text
}

fn assert_documented(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../src/guide/exchanges");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let id = r#"(/jobs/|"id":"|tower-accepted:)[A-Za-z0-9_-]{22}"#;
    settings.add_filter(id, "${1}tQ3nC2hDQ0eY6o1bF9qk5A");
    settings.add_filter(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.\d{3}Z",
        "2026-11-23T13:40:01.120Z",
    );
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[tokio::test(start_paused = true)]
async fn documented_exchanges_match_each_dialect() {
    for (name, dialect) in [
        ("default", Dialect::Default),
        ("pending202", Dialect::Pending202),
        ("see_other", Dialect::SeeOther),
    ] {
        assert_documented(name, &conversation(dialect).await);
    }
}
