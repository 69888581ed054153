//! Expiry: what outlasts the retention of jobs, and what does not.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::{join, select, sync::Notify, time::timeout};
use tower_accepted::{
    JobId, RequestBody, Status,
    store::{Lookup, NewJob, Queue, Revisions, Store},
};

use crate::{
    server::Servers,
    site::{
        Deployment, keyed, large, options, or_skip, outcome, owned, until, wait_for_end, waiting,
    },
    streams::{BUCKET, REQUESTS, RESULTS, UnrenewedRecord, messages, outlast_retention, stream},
    support::{Body, Counter, Failed, get, inner, ok, post, request, send, with},
};

const RETENTION: Duration = Duration::from_secs(2);

/// Counts the messages of every stream that has some.
async fn message_counts(servers: &Servers) -> Vec<(String, u64)> {
    let jetstream = jetstream::new(servers.client().await);
    let streams = jetstream.streams();
    let counts = streams.try_filter_map(async |info| {
        let name = info.config.name;
        Ok((info.state.messages > 0).then_some((name, info.state.messages)))
    });
    counts.try_collect().await.unwrap()
}

#[tokio::test]
async fn expired_jobs_leave_no_messages() {
    let options = options().retain(RETENTION).keep_keys_for(RETENTION);
    let nats = or_skip!(Deployment::start(options.inline(1_000))).with_builder(owned());
    let site = nats.front().await;
    let user = ("x-user", "me");
    let mut accepted = Vec::new();
    for request in [
        with(large("/large"), &[user, ("idempotency-key", "\"k\"")]),
        post("/small"),
        with(post("/panic"), &[user]),
        with(post("/keyed"), &[("idempotency-key", "\"other\"")]),
    ] {
        accepted.push(send(&site, request).await.location().to_owned());
    }
    let canceled = send(&site, post("/canceled")).await.location().to_owned();
    send(&site, post(&format!("{canceled}/cancel"))).await;
    let deleted = with(post("/deleted"), &[("idempotency-key", "\"d\"")]);
    let deleted = send(&site, deleted).await;
    send(&site, request("DELETE", deleted.location())).await;
    let service = inner(
        async |request: Request<RequestBody<Body>>| match request.uri().path() {
            "/large" => {
                let mut large = ok("")?;
                *large.body_mut() = Body::from(vec![8; 700_000]);
                Ok::<_, Failed>(large)
            }
            "/panic" => panic!("on purpose"),
            _ => ok("done"),
        },
    );
    nats.worker(service).await;
    for location in &accepted {
        let wait = with(get(location), &[user, ("prefer", "wait=10")]);
        let end = send(&site, wait).await.json();
        assert!(end["finishedAt"].is_string(), "{end}");
    }
    assert!(!message_counts(&nats.servers).await.is_empty());
    until(async || message_counts(&nats.servers).await.is_empty()).await;
    for location in accepted.iter().chain([&canceled]) {
        let answer = send(&site, with(get(location), &[user])).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn running_job_outlasts_the_retention() {
    let nats = or_skip!(Deployment::start(options().retain(RETENTION)));
    let site = nats.front().await;
    let go = Arc::new(Notify::new());
    nats.worker(waiting(&Counter::default(), &go, "done")).await;
    let accepted = send(&site, keyed()).await;
    let status = async || {
        let answer = send(&site, get(accepted.location())).await;
        assert_eq!(answer.status, StatusCode::OK);
        let repeated = send(&site, keyed()).await;
        assert_eq!(repeated.location(), accepted.location());
        outcome(&answer.json())
    };
    until(async || status().await == "running").await;
    let record = UnrenewedRecord::write(&nats.servers).await;
    until(async || {
        assert_eq!(status().await, "running");
        record.has_expired().await
    })
    .await;
    go.notify_one();
    until(async || status().await == "succeeded").await;
}

#[tokio::test]
async fn queued_job_outlasts_the_retention() {
    let options = options().retain(RETENTION).inline(1_000);
    let nats = or_skip!(Deployment::start(options)).with_builder(owned());
    let site = nats.front().await;
    let user = ("x-user", "me");
    let large = || with(large("/large"), &[user, ("idempotency-key", "\"large\"")]);
    let accepted = send(&site, large()).await;
    outlast_retention(&nats.servers).await;
    let monitor = || with(get(accepted.location()), &[user]);
    assert_eq!(send(&site, monitor()).await.json()["status"], "queued");
    // The key and the entry in the owner's list were renewed.
    assert_eq!(send(&site, large()).await.location(), accepted.location());
    let list = send(&site, with(get("/jobs"), &[user])).await;
    assert_eq!(list.json()["jobs"].as_array().unwrap().len(), 1);
    let service = inner(async |request: Request<RequestBody<Body>>| {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert!(body == vec![7; 600_000]);
        ok("done")
    });
    nats.worker(service).await;
    until(async || send(&site, monitor()).await.json()["status"] == "succeeded").await;
}

#[tokio::test]
async fn list_ends_while_its_entries_are_renewed() {
    let nats = or_skip!(Deployment::start(options())).with_builder(owned());
    let site = nats.front().await;
    let user = ("x-user", "me");
    send(&site, with(post("/it"), &[user])).await;
    let mut entries = messages(&stream(&nats.servers, BUCKET).await).await;
    entries.retain(|(subject, _)| subject.contains("_jobs.owner."));
    assert_eq!(entries.len(), 1);
    let jetstream = jetstream::new(nats.servers.client().await);
    let renewing = async {
        loop {
            for (subject, payload) in entries.clone() {
                jetstream
                    .publish(subject, payload)
                    .await
                    .unwrap()
                    .await
                    .unwrap();
            }
        }
    };
    let listing = async {
        for _ in 0..20 {
            let list = send(&site, with(get("/jobs"), &[user])).await;
            assert_eq!(list.json()["jobs"].as_array().unwrap().len(), 1);
        }
    };
    let listed = timeout(Duration::from_secs(30), async {
        select! {
            () = renewing => {}
            () = listing => {}
        }
    });
    listed.await.expect("each list ends");
}

#[tokio::test]
async fn canceled_job_stays_canceled_until_it_expires() {
    let nats = or_skip!(Deployment::start(options().retain(RETENTION)));
    let store = nats.store().await;
    let (head, _) = post("/it").into_parts();
    let new = NewJob::new(JobId::random());
    let record = store.record(&head, &Bytes::new(), None);
    store.accept(&new, record).await.unwrap();
    let ticket = store.next(1).await.unwrap().pop().unwrap();
    let work = store.claim(ticket).await.unwrap().unwrap();
    store.cancel(new.id, &Revisions::Any).await.unwrap();
    until(async || match store.get(new.id).await.unwrap() {
        Lookup::Found(job) => {
            assert_eq!(job.status, Status::Canceled);
            false
        }
        Lookup::Gone(_) => false,
        Lookup::Unknown => true,
    })
    .await;
    // The call goes on, and keeps its claim.
    drop(work);
}

/// Servers up to 2.9.17 replay a purge from their log after a crash. The replay removes all older
/// messages of the stream.
#[tokio::test]
async fn bodies_are_removed_without_a_purge() {
    let nats = or_skip!(Deployment::start(options().inline(1_000)));
    let site = nats.front().await;
    let client = nats.servers.client().await;
    let mut purges = client.subscribe("$JS.API.STREAM.PURGE.>").await.unwrap();
    let calls = client.subscribe("$JS.API.STREAM.MSG.*.accepted_requests");
    let calls = calls.await.unwrap();
    client.flush().await.unwrap();
    let accepted = send(&site, large("/large")).await;
    let bodies = async || {
        let mut counts = message_counts(&nats.servers).await;
        counts.retain(|(stream, _)| stream == REQUESTS || stream == RESULTS);
        counts
    };
    assert_eq!(bodies().await, [(REQUESTS.to_owned(), 3)]);
    let service = inner(async |_| {
        let mut large = ok("")?;
        *large.body_mut() = Body::from(vec![8; 700_000]);
        Ok::<_, Failed>(large)
    });
    nats.worker(service).await;
    wait_for_end(&site, accepted.location()).await;
    until(async || bodies().await == [(RESULTS.to_owned(), 3)]).await;
    // The worker reads each chunk once: it removes them without another read.
    let verbs = calls.take(6).map(|call| {
        let verb = call.subject.split('.').nth(4);
        verb.map(str::to_owned).unwrap_or_default()
    });
    let verbs: Vec<_> = verbs.collect().await;
    assert_eq!(verbs, ["GET", "GET", "GET", "DELETE", "DELETE", "DELETE"]);
    let delete = request("DELETE", accepted.location());
    assert_eq!(send(&site, delete).await.status, StatusCode::NO_CONTENT);
    assert_eq!(bodies().await, []);
    client.flush().await.unwrap();
    assert!(purges.next().now_or_never().is_none());
}

#[tokio::test]
async fn list_ends_after_its_entries_were_renewed() {
    let nats = or_skip!(Deployment::start(options())).with_builder(owned());
    let site = nats.front().await;
    let user = ("x-user", "me");
    for _ in 0..3 {
        send(&site, with(post("/it"), &[user])).await;
    }
    let mut entries = messages(&stream(&nats.servers, BUCKET).await).await;
    entries.retain(|(subject, _)| subject.contains("_jobs.owner."));
    assert_eq!(entries.len(), 3);
    let jetstream = jetstream::new(nats.servers.client().await);
    for round in 0..300 {
        // Ends at another moment of the list each time.
        let renewing = async {
            for step in 0..round % 23 {
                let (subject, payload) = entries[(round + step) % 3].clone();
                let sent = jetstream.publish(subject, payload).await.unwrap();
                sent.await.unwrap();
            }
        };
        let listing = send(&site, with(get("/jobs"), &[user]));
        let (list, ()) = join!(listing, renewing);
        assert_eq!(list.status, StatusCode::OK);
    }
}
