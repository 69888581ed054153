//! Receivers that are notified of a job in another process.

use axum::{Router, routing::post as on_post};
use http::HeaderMap;
use tokio::{net::TcpListener, sync::mpsc};
use tower_accepted::{
    Jobs,
    webhook::{EventType, Secret, Target, Verifier, Webhooks},
};

use crate::{
    site::{Deployment, front, options, or_skip, work},
    support::{Body, inner, ok, post, send},
};

#[tokio::test(flavor = "multi_thread")]
async fn worker_notifies_of_a_running_job() {
    let nats = or_skip!(Deployment::start(options()));
    let secret = Secret::generate();
    let verifier = Verifier::new([secret.clone()]);
    let (sender, mut events) = mpsc::unbounded_channel();
    let receive = on_post(async move |headers: HeaderMap, body: bytes::Bytes| {
        let event = verifier.verify(&headers, &body).expect("a signature");
        let _ = sender.send((event.type_name, headers["webhook-id"].clone()));
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let app = Router::new().route("/hook", receive);
    let receiver = tokio::spawn(async move { axum::serve(listener, app).await });

    let webhooks = Webhooks::new()
        .secret(secret)
        .insecure_for_development()
        .targets(move |_| {
            let events = [EventType::JobStarted, EventType::JobSucceeded];
            vec![Target::new(&url).events(events)]
        });
    let nats = nats.with_builder(Jobs::builder().webhooks(webhooks));
    let [web, worker] = [nats.jobs().await, nats.jobs().await];
    let accepted = send(&front(&web), post("/reports")).await;
    let (end, ended) = tokio::sync::watch::channel(());
    let service = inner(move |_: http::Request<tower_accepted::RequestBody<Body>>| {
        let mut ended = ended.clone();
        async move {
            let _ = ended.changed().await;
            ok("the report")
        }
    });
    let _working = work(&worker, service);
    let (name, id) = events.recv().await.unwrap();
    assert_eq!(name, "job.started");
    let prefix = format!("{}_0_", accepted.id());
    assert!(id.to_str().unwrap().starts_with(&prefix), "{id:?}");
    end.send(()).unwrap();
    let (name, id) = events.recv().await.unwrap();
    assert_eq!(
        (&*name, id),
        (
            "job.succeeded",
            format!("{}_0", accepted.id()).parse().unwrap()
        )
    );
    receiver.abort();
}
