//! Gateways that are killed (`kill -9`) between the ends of jobs and their callbacks.
//!
//! `ACCEPTED_DELIVERY_CASES` sets the number of ends (default: 20), half by the call and half by a
//! cancel.

use std::{collections::BTreeMap, env};

use tokio::sync::mpsc;
use tower_accepted::webhook::{Secret, WebhookEvent};

use crate::{
    callbacks::{NO_CONTENT, delivery_in, flags, secret_file, submit, verified},
    client::{ended, request, send},
    program::Program,
    upstream::{Received, Upstream},
};

const ENDS: usize = 20;

/// Returns the event of a job from its callback, and the number of the job from its path.
fn event(received: &Received, secret: &Secret) -> (usize, WebhookEvent) {
    let path = received.line.split(' ').nth(1).expect("a path");
    let number = path.strip_prefix("/hooks/").expect("the path of a target");
    let number = number.parse().expect("a number");
    (number, verified(received, secret.clone()))
}

/// Ends jobs in a gateway whose receiver does not answer, kills it, and checks that the next one
/// delivers each end.
async fn next_gateway_delivers(store: &[&str]) {
    let ends = env::var("ACCEPTED_DELIVERY_CASES");
    let ends = ends.map_or(ENDS, |ends| ends.parse().expect("a number"));
    let (mut upstream, mut receiver) = (Upstream::start().await, Upstream::start().await);
    let secret = Secret::generate();
    let file = secret_file(&[&secret]);
    let host = receiver.address.to_string();
    let flags = [&flags(&host, &file)[..], &["--callback-insecure"], store].concat();
    let killed = Program::gateway(upstream.address, &flags).await;
    let mut jobs = Vec::new();
    for number in 0..ends {
        let url = format!("http://{host}/hooks/{number}");
        let job = submit(&killed, "x-callback-url", &url).await.job();
        let received = upstream.next().await;
        if number % 2 == 0 {
            received.ok("report").await;
        } else {
            let cancel = request("POST", &format!("{job}/cancel")).body("".into());
            send(killed.address, cancel.expect("a request")).await;
        }
        ended(killed.address, &job).await;
        jobs.push(job);
    }
    let mut ids = Vec::new();
    for job in &jobs {
        let delivery = delivery_in(&killed, job, "pending").await;
        ids.push(delivery["id"].as_str().expect("an id").to_owned());
    }
    let in_flight = receiver.next().await;
    let begun = event(&in_flight, &secret);
    killed.signal("KILL").await;
    killed.ended().await;

    let next = Program::gateway(upstream.address, &flags).await;
    let (sender, mut events) = mpsc::unbounded_channel();
    let receiving = tokio::spawn(async move {
        loop {
            let received = receiver.next().await;
            let _ = sender.send(event(&received, &secret));
            // Some requests are those of the killed gateway.
            let _ = received.try_answer(NO_CONTENT).await;
        }
    });
    for job in &jobs {
        delivery_in(&next, job, "delivered").await;
    }
    receiving.abort();
    let mut received = BTreeMap::from([begun]);
    while let Ok((number, event)) = events.try_recv() {
        // Each attempt has the same id and body.
        let first = received.entry(number).or_insert_with(|| event.clone());
        assert_eq!(*first, event);
    }
    assert_eq!(received.len(), ends);
    for (number, event) in received {
        let expected = ["job.succeeded", "job.canceled"][number % 2];
        assert_eq!((&event.id, &*event.type_name), (&ids[number], expected));
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_keeps_callbacks_of_a_killed_gateway() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("jobs.db");
    next_gateway_delivers(&["--store", file.to_str().expect("UTF-8")]).await;
}

#[cfg(feature = "nats")]
#[tokio::test]
async fn jetstream_keeps_callbacks_of_a_killed_gateway() {
    if let Some(servers) = crate::servers::Servers::one().await {
        next_gateway_delivers(&["--nats", &servers.url()]).await;
    }
}
