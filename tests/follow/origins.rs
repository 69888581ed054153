//! Tests which origins a 202 can lead to, and which headers are sent there.

use http::{HeaderName, header};
use serde_json::json;
use tower_accepted::follow::{FollowAcceptedLayer, NotFollowed, Reason};

use crate::support::*;

const HOME: &str = "https://a.example/reports";
const METADATA: &str = "http://169.254.169.254/latest/meta-data";

fn with_credentials(uri: &str) -> http::Request<Body> {
    let mut request = request("POST", uri);
    for (name, value) in [
        ("authorization", "Bearer token"),
        ("cookie", "session=1"),
        ("x-api-key", "key"),
        ("x-tenant", "7"),
        ("accept", "application/pdf"),
    ] {
        let value = value.parse().expect("a value");
        request.headers_mut().insert(name, value);
    }
    request.extensions_mut().insert("of the first origin");
    request
}

fn succeeded(result: &str) -> Reply {
    document(json!({ "status": "succeeded", "resourceLocation": result }))
}

#[tokio::test(start_paused = true)]
async fn monitor_on_another_origin_is_not_polled() {
    for other in [
        METADATA,
        "//169.254.169.254/latest/meta-data",
        "http://a.example/jobs/1",
        "https://a.example:8443/jobs/1",
        "https://www.a.example/jobs/1",
    ] {
        for name in ["operation-location", "content-location", "location"] {
            let (server, log) = script([reply(202).with(name, other).body("thank you")]);
            let layer = FollowAcceptedLayer::new();
            let answer = follow(&layer, server, with_credentials(HOME))
                .await
                .expect("a response");
            assert_eq!(answer.text(), "thank you");
            let reason: NotFollowed = answer.extension().expect("a reason");
            assert!(matches!(reason, NotFollowed::OtherOrigin(_)), "{reason:?}");
            assert_eq!(log.all().len(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn first_monitor_on_an_allowed_origin_is_used() {
    let (server, log) = script([
        reply(202)
            .with("operation-location", "https://public.example/jobs/1")
            .with("link", "</jobs/1>; rel=monitor"),
        succeeded("/r"),
        reply(200),
    ]);
    follow(&FollowAcceptedLayer::new(), server, with_credentials(HOME))
        .await
        .expect("a response");
    assert_eq!(log.lines()[1], "GET https://a.example/jobs/1");
}

#[tokio::test(start_paused = true)]
async fn later_steps_to_another_origin_are_errors() {
    let accepted = || reply(202).with("operation-location", "/jobs/1");
    let running = || document(json!({ "status": "running" }));
    for replies in [
        vec![accepted(), succeeded(METADATA)],
        vec![accepted(), reply(307).with("location", METADATA)],
        vec![accepted(), reply(303).with("location", METADATA)],
        vec![accepted(), running().with("operation-location", METADATA)],
        vec![
            accepted(),
            succeeded("/r"),
            reply(302).with("location", METADATA),
        ],
        vec![
            accepted(),
            succeeded("/r"),
            reply(303).with("location", METADATA),
        ],
        vec![
            accepted().with("location", METADATA),
            document(json!({ "status": "succeeded" })),
        ],
    ] {
        let requests = replies.len();
        let (server, log) = script(replies);
        let layer = FollowAcceptedLayer::new();
        let error = failure(follow(&layer, server, with_credentials(HOME)).await);
        assert!(
            matches!(error.reason(), Reason::OtherOrigin(uri) if *uri == METADATA),
            "{error:?}"
        );
        assert!(
            !error.to_string().contains("169"),
            "errors must not display URIs"
        );
        assert_eq!(log.all().len(), requests);
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_are_sent_to_the_same_origin() {
    let (server, log) = script([
        reply(202).with("operation-location", "HTTPS://A.example:443/jobs/1"),
        succeeded("/r"),
        reply(200),
    ]);
    let layer = FollowAcceptedLayer::new();
    follow(&layer, server, with_credentials(HOME))
        .await
        .expect("a response");
    let all = log.all();
    for seen in &all {
        assert_eq!(seen.header("authorization"), Some("Bearer token"));
        assert_eq!(seen.header("cookie"), Some("session=1"));
        assert_eq!(seen.header("x-api-key"), Some("key"));
        assert_eq!(seen.extensions.get(), Some(&"of the first origin"));
    }
    assert_eq!(all[2].header("accept"), Some("application/pdf"));
}

#[tokio::test(start_paused = true)]
async fn other_origins_get_only_shared_headers() {
    let (server, log) = script([
        reply(202).with("operation-location", "https://jobs.example/1"),
        // Another origin named this URI, so credentials are not sent to the first one either.
        succeeded("https://a.example/r"),
        reply(200),
    ]);
    let layer = FollowAcceptedLayer::new()
        .allow_origin("https://jobs.example")
        .share_header(HeaderName::from_static("x-tenant"));
    follow(&layer, server, with_credentials(HOME))
        .await
        .expect("a response");
    for seen in &log.all()[1..] {
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(seen.header("cookie"), None);
        assert_eq!(seen.header("x-api-key"), None);
        assert_eq!(seen.header("x-tenant"), Some("7"));
        assert!(seen.extensions.get::<&str>().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn result_on_an_allowed_origin_needs_no_credentials() {
    let (server, log) = script([
        reply(202).with("operation-location", "/jobs/1"),
        succeeded("/r"),
        reply(303).with("location", "https://store.example:9000/r?signature=1"),
        reply(200).body("the report"),
    ]);
    let layer = FollowAcceptedLayer::new()
        .allow_origin("https://store.example:9000/")
        .share_header(header::ACCEPT);
    let answer = follow(&layer, server, with_credentials(HOME))
        .await
        .expect("a response");
    assert_eq!(answer.text(), "the report");
    let last = log.last();
    assert_eq!(last.uri, "https://store.example:9000/r?signature=1");
    let names: Vec<_> = last.headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(names, ["accept"]);
    assert_eq!(last.header("accept"), Some("application/pdf"));
}

#[tokio::test(start_paused = true)]
async fn downgrade_to_an_allowed_origin_is_refused() {
    let (server, _) = script([
        reply(202).with("operation-location", "/jobs/1"),
        succeeded("http://store.example/r"),
    ]);
    let layer = FollowAcceptedLayer::new().allow_origin("http://store.example");
    let error = failure(follow(&layer, server, with_credentials(HOME)).await);
    assert!(
        matches!(error.reason(), Reason::OtherOrigin(_)),
        "{error:?}"
    );

    let (server, _) = script([
        reply(202).with("operation-location", "/jobs/1"),
        succeeded("http://store.example/r"),
        reply(200),
    ]);
    let request = with_credentials("http://a.example/reports");
    follow(&layer, server, request)
        .await
        .expect("from http it is not a downgrade");
}

#[test]
fn allow_origin_refuses_what_is_not_an_origin() {
    for origin in [
        "https://a.example/path",
        "https://a.example?query",
        "https://user@a.example",
        "ftp://a.example",
        "http://a.example:99999",
        "a.example",
        "*",
        "",
    ] {
        let error = FollowAcceptedLayer::new().try_allow_origin(origin);
        assert!(error.is_err(), "{origin}");
    }
    let allow = || FollowAcceptedLayer::new().allow_origin("*");
    assert!(std::panic::catch_unwind(allow).is_err());
}
