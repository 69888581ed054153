//! Tests the updates that observers receive.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tower_accepted::follow::{FollowAcceptedLayer, Observer, Update};

use crate::support::*;

type Updates = Arc<Mutex<Vec<Update>>>;

/// Returns the updates that the callback has received.
fn recorder() -> (Updates, impl Fn(Update) + Send + Sync + 'static) {
    let updates = Updates::default();
    let recorded = updates.clone();
    let record = move |update| recorded.lock().expect("no panic").push(update);
    (updates, record)
}

fn summaries(updates: &Updates) -> Vec<(u32, Option<f64>, Option<String>)> {
    let updates = updates.lock().expect("no panic");
    let summary = |update: &Update| (update.polls, update.percent, update.message.clone());
    updates.iter().map(summary).collect()
}

#[tokio::test(start_paused = true)]
async fn each_poll_sends_an_update() {
    let (server, _) = script([
        reply(202)
            .with("operation-location", "/jobs/1")
            .json(json!({ "status": "queued", "message": "in line" })),
        document(json!({ "status": "running", "percentComplete": 12.5, "queue": "fast" })),
        reply(503),
        document(json!({ "status": "running", "percentComplete": 800, "message": "page 4" })),
        document(json!({ "status": "succeeded" })),
    ]);
    let (updates, record) = recorder();
    let layer = FollowAcceptedLayer::new().on_update(record);
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        summaries(&updates),
        [
            (0, None, text("in line")),
            (1, Some(12.5), None),
            (3, Some(100.0), text("page 4")),
            (4, None, None),
        ]
    );
    let updates = updates.lock().expect("no panic");
    let document = updates[1].document.as_ref().expect("a document");
    assert_eq!(document.get("queue"), Some(&json!("fast")));
    assert!(
        updates
            .iter()
            .all(|update| update.monitor == "http://a.example/jobs/1")
    );
}

#[tokio::test(start_paused = true)]
async fn x_progress_replaces_a_missing_document() {
    let (server, _) = script([
        reply(202).with("content-location", "/jobs/1"),
        reply(202).with("x-progress", "30% of patients"),
        reply(202).with("x-progress", "almost there"),
        reply(200),
    ]);
    let (updates, record) = recorder();
    let layer = FollowAcceptedLayer::new().on_update(record);
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        summaries(&updates),
        [
            (0, None, None),
            (1, Some(30.0), text("of patients")),
            (2, None, text("almost there")),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn request_observer_replaces_the_layers() {
    let (server, _) = script([
        reply(202).with("content-location", "/jobs/1"),
        reply(200),
        reply(202).with("content-location", "/jobs/2"),
        reply(200),
    ]);
    let (of_all, record) = recorder();
    let layer = FollowAcceptedLayer::new().on_update(record);
    let (of_one, record) = recorder();
    let mut request = request("POST", REPORTS);
    request.extensions_mut().insert(Observer::new(record));
    follow(&layer, server.clone(), request)
        .await
        .expect("a response");
    assert_eq!(
        (
            of_all.lock().expect("no panic").len(),
            of_one.lock().expect("no panic").len()
        ),
        (0, 1)
    );
    follow(&layer, server, crate::support::request("POST", REPORTS))
        .await
        .expect("a response");
    assert_eq!(
        (
            of_all.lock().expect("no panic").len(),
            of_one.lock().expect("no panic").len()
        ),
        (1, 1)
    );
}
