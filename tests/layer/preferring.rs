//! Applies the field `Prefer`, and reports what was applied.

use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{AcceptedLayer, When};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn response_lists_the_applied_preferences() {
    let after = When::After(Duration::from_secs(1));
    for (when, prefer, seconds, applied) in [
        (When::Always, "respond-async", 0, Some("respond-async")),
        (When::Always, "respond-async, wait=5", 2, Some("wait=5")),
        (
            When::Always,
            "respond-async, wait=5",
            20,
            Some("respond-async, wait=5"),
        ),
        (When::Always, "wait=500", 2, Some("wait=50")),
        (after, "wait=5", 20, Some("wait=5")),
        (after, "return=minimal", 20, None),
        (When::Preferred, "respond-async", 2, Some("respond-async")),
        (When::Preferred, "return=minimal", 2, None),
    ] {
        let service = AcceptedLayer::new()
            .when(when)
            .layer(inner(move |_| async move {
                sleep(Duration::from_secs(seconds)).await;
                ok("")
            }));
        let answer = send(&service, with(post("/"), &[("prefer", prefer)])).await;
        let header = answer.header("preference-applied");
        assert_eq!(header, applied, "{when:?}, {prefer}, {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn response_varies_if_prefer_can_change_it() {
    let inner = || {
        inner(async |_| {
            let response = Response::builder().header("vary", "accept-language");
            Ok(response.body(Body::empty()).unwrap())
        })
    };
    let vary = async |when: When, request| {
        let answer = send(&AcceptedLayer::new().when(when).layer(inner()), request).await;
        let values = answer.headers.get_all("vary").iter();
        let values: Vec<_> = values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect();
        values.join(", ")
    };
    assert_eq!(vary(When::Always, post("/")).await, "prefer");
    let both = "accept-language, prefer";
    assert_eq!(vary(When::After(Duration::ZERO), post("/")).await, both);
    assert_eq!(vary(When::Preferred, post("/")).await, both);
    for (when, request) in [(When::Never, post("/")), (When::Always, get("/"))] {
        assert_eq!(vary(when, request).await, "accept-language");
    }
}

#[tokio::test(start_paused = true)]
async fn preferences_in_several_lines_are_one_list() {
    let service = AcceptedLayer::new()
        .when(When::Preferred)
        .layer(inner(async |_| ok("")));
    let lines = [
        ("prefer", "return=minimal; junk=\"a, b\""),
        ("prefer", ", ,;=, Respond-Async;x=1"),
    ];
    let answer = send(&service, with(post("/"), &lines)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
}
