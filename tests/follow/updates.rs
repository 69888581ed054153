//! Who hears what of a job.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tower_accepted::follow::{FollowAcceptedLayer, Observer, Update};

use crate::support::*;

type Heard = Arc<Mutex<Vec<Update>>>;

fn listener() -> (Heard, impl Fn(Update) + Send + Sync + 'static) {
    let heard = Heard::default();
    let hearing = heard.clone();
    let hear = move |update| hearing.lock().expect("no panic").push(update);
    (heard, hear)
}

fn told(heard: &Heard) -> Vec<(u32, Option<f64>, Option<String>)> {
    let heard = heard.lock().expect("no panic");
    let tell = |update: &Update| (update.polls, update.percent, update.message.clone());
    heard.iter().map(tell).collect()
}

#[tokio::test(start_paused = true)]
async fn every_look_is_told_with_what_the_server_says() {
    let (server, _) = script([
        reply(202)
            .with("operation-location", "/jobs/1")
            .json(json!({ "status": "queued", "message": "in line" })),
        document(json!({ "status": "running", "percentComplete": 12.5, "queue": "fast" })),
        reply(503),
        document(json!({ "status": "running", "percentComplete": 800, "message": "page 4" })),
        document(json!({ "status": "succeeded" })),
    ]);
    let (heard, hear) = listener();
    let layer = FollowAcceptedLayer::new().on_update(hear);
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        told(&heard),
        [
            (0, None, text("in line")),
            (1, Some(12.5), None),
            (3, Some(100.0), text("page 4")),
            (4, None, None),
        ]
    );
    let heard = heard.lock().expect("no panic");
    let document = heard[1].document.as_ref().expect("a document");
    assert_eq!(document.get("queue"), Some(&json!("fast")));
    assert!(
        heard
            .iter()
            .all(|update| update.monitor == "http://a.example/jobs/1")
    );
}

#[tokio::test(start_paused = true)]
async fn x_progress_is_told_where_there_is_no_document() {
    let (server, _) = script([
        reply(202).with("content-location", "/jobs/1"),
        reply(202).with("x-progress", "30% of patients"),
        reply(202).with("x-progress", "almost there"),
        reply(200),
    ]);
    let (heard, hear) = listener();
    let layer = FollowAcceptedLayer::new().on_update(hear);
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        told(&heard),
        [
            (0, None, None),
            (1, Some(30.0), text("of patients")),
            (2, None, text("almost there")),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn one_requests_observer_takes_the_place_of_the_layers() {
    let (server, _) = script([
        reply(202).with("content-location", "/jobs/1"),
        reply(200),
        reply(202).with("content-location", "/jobs/2"),
        reply(200),
    ]);
    let (of_all, hear) = listener();
    let layer = FollowAcceptedLayer::new().on_update(hear);
    let (of_one, hear) = listener();
    let mut request = request("POST", REPORTS);
    request.extensions_mut().insert(Observer::new(hear));
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
