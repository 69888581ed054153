//! What is kept, for how long, and what is left of it.

use std::{collections::HashSet, time::Duration};

use async_nats::jetstream;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tower_accepted::{
    Filter, JobId, Jobs, Owner, RequestBody, Status,
    store::{
        Lookup, NewJob, Queue, Store,
        nats::{NatsError, NatsOptions, NatsStore, Storage},
    },
};

use crate::{
    server::Servers,
    site::{Pair, counting, ended, options, process, served, stream, until, work},
    support::{Body, Counter, Failed, get, inner, ok, post, request, send, with},
};

/// How many messages there are in all streams.
async fn messages(servers: &Servers) -> Vec<(String, u64)> {
    use futures_util::TryStreamExt;
    let jetstream = jetstream::new(servers.client().await);
    let streams = jetstream.streams();
    let left = streams.try_filter_map(async |info| {
        let name = info.config.name;
        Ok((info.state.messages > 0).then_some((name, info.state.messages)))
    });
    left.try_collect().await.unwrap()
}

#[tokio::test]
async fn nothing_is_left_of_jobs_when_they_have_expired() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().retain(Duration::from_secs(4)).inline(1_000);
    let builder = || Jobs::builder().owner(|head| head.headers.get("x-user").map(Owner::new));
    let web = process(&servers, options.clone(), builder()).await;
    let worker = process(&servers, options, builder()).await;
    let site = served(&web);
    let mut large = with(
        post("/large"),
        &[("x-user", "me"), ("idempotency-key", "\"k\"")],
    );
    *large.body_mut() = Body::from(vec![7; 600_000]);
    let mut accepted = Vec::new();
    for request in [
        large,
        post("/small"),
        with(post("/panic"), &[("x-user", "me")]),
        with(post("/keyed"), &[("idempotency-key", "\"other\"")]),
    ] {
        accepted.push(send(&site, request).await.location().to_owned());
    }
    let canceled = send(&site, post("/canceled")).await.location().to_owned();
    send(&site, post(&format!("{canceled}/cancel"))).await;
    let deleted = send(
        &site,
        with(post("/deleted"), &[("idempotency-key", "\"d\"")]),
    )
    .await;
    send(&site, request("DELETE", deleted.location())).await;
    work(
        &worker,
        inner(
            async |request: Request<RequestBody<Body>>| match request.uri().path() {
                "/large" => {
                    let mut large = ok("")?;
                    *large.body_mut() = Body::from(vec![8; 700_000]);
                    Ok::<_, Failed>(large)
                }
                "/panic" => panic!("on purpose"),
                _ => ok("done"),
            },
        ),
    );
    for location in &accepted {
        let wait = with(get(location), &[("x-user", "me"), ("prefer", "wait=10")]);
        let end = send(&site, wait).await.json();
        assert!(end["finishedAt"].is_string(), "{end}");
    }
    assert!(!messages(&servers).await.is_empty());
    until(async || messages(&servers).await.is_empty()).await;
    for location in accepted.iter().chain([&canceled]) {
        let answer = send(&site, with(get(location), &[("x-user", "me")])).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn what_runs_longer_than_jobs_are_kept_is_kept_while_it_runs() {
    let Some(pair) = Pair::start(options().retain(Duration::from_secs(3))).await else {
        return;
    };
    work(
        &pair.worker,
        inner(async |_| {
            tokio::time::sleep(Duration::from_secs(8)).await;
            ok("at last")
        }),
    );
    let keyed = || with(post("/long"), &[("idempotency-key", "\"long\"")]);
    let accepted = send(&pair.site, keyed()).await;
    until(async || {
        let answer = send(&pair.site, get(accepted.location())).await;
        assert_eq!(answer.status, StatusCode::OK);
        let again = send(&pair.site, keyed()).await;
        assert_eq!(again.location(), accepted.location());
        answer.json()["status"] == "succeeded"
    })
    .await;
}

#[tokio::test]
async fn what_waits_longer_than_jobs_are_kept_is_run() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().retain(Duration::from_secs(2)).inline(1_000);
    let builder = || Jobs::builder().owner(|head| head.headers.get("x-user").map(Owner::new));
    let web = process(&servers, options.clone(), builder()).await;
    let site = served(&web);
    let large = || {
        let fields = [("x-user", "me"), ("idempotency-key", "\"large\"")];
        let mut large = with(post("/large"), &fields);
        *large.body_mut() = Body::from(vec![7; 600_000]);
        large
    };
    let accepted = send(&site, large()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mine = || with(get(accepted.location()), &[("x-user", "me")]);
    assert_eq!(send(&site, mine()).await.json()["status"], "queued");
    // Its key is still used, and its owner's list has it.
    assert_eq!(send(&site, large()).await.location(), accepted.location());
    let list = send(&site, with(get("/jobs"), &[("x-user", "me")])).await;
    assert_eq!(list.json()["jobs"].as_array().unwrap().len(), 1);
    let worker = process(&servers, options, builder()).await;
    work(
        &worker,
        inner(async |request: Request<RequestBody<Body>>| {
            use http_body_util::BodyExt;
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert!(body == vec![7; 600_000]);
            ok("done")
        }),
    );
    until(async || send(&site, mine()).await.json()["status"] == "succeeded").await;
}

#[tokio::test]
async fn a_list_of_more_than_is_fetched_at_a_time_is_whole() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let builder = Jobs::builder().owner(|head| head.headers.get("x-user").map(Owner::new));
    let web = process(&servers, options(), builder).await;
    let site = served(&web);
    let mut sending = JoinSet::new();
    for _ in 0..1_100 {
        let site = site.clone();
        sending.spawn(async move { send(&site, with(post("/it"), &[("x-user", "me")])).await });
    }
    while let Some(accepted) = sending.join_next().await {
        assert_eq!(accepted.unwrap().status, StatusCode::ACCEPTED);
    }
    let mut filter = Filter::new().owner(Owner::new("me")).limit(400);
    let mut listed = HashSet::new();
    loop {
        let page = web.list(&filter).await.unwrap();
        listed.extend(page.jobs.iter().map(|job| job.id));
        match page.next {
            Some(next) => filter = filter.after(next),
            None => break,
        }
    }
    assert_eq!(listed.len(), 1_100);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
}

#[derive(Debug, Clone)]
struct Local;

#[tokio::test]
async fn extensions_cross_where_they_are_named() {
    let Some(pair) = Pair::start(options().carry::<User>("user")).await else {
        return;
    };
    let user = User {
        name: "Zoë".to_owned(),
    };
    let mut request = post("/it");
    request.extensions_mut().insert(user.clone());
    request.extensions_mut().insert(Local);
    let accepted = send(&pair.site, request).await;
    work(
        &pair.worker,
        inner(move |request: Request<RequestBody<Body>>| {
            assert_eq!(request.extensions().get(), Some(&user));
            assert!(request.extensions().get::<Local>().is_none());
            async { ok("done") }
        }),
    );
    let end = ended(&pair.site, accepted.location()).await;
    assert_eq!(end.json()["status"], "succeeded", "{end:?}");
}

#[tokio::test]
async fn many_processes_connect_at_a_time_and_one_that_asks_for_something_else_is_told() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let mut connecting = JoinSet::new();
    for _ in 0..8 {
        let client = servers.client().await;
        connecting.spawn(NatsStore::connect(client, options()));
    }
    while let Some(connected) = connecting.join_next().await {
        connected.unwrap().unwrap();
    }
    let unfit = async |options: NatsOptions| {
        let client = servers.client().await;
        match NatsStore::connect(client, options).await {
            Err(error @ NatsError::ConfigMismatch { .. }) => error.to_string(),
            other => panic!("it fits: {other:?}"),
        }
    };
    let told = unfit(options().retain(Duration::from_secs(7))).await;
    assert!(
        told.starts_with("KV_accepted_jobs has max age 60s, but the options ask for 7s"),
        "{told}"
    );
    let told = unfit(options().storage(Storage::Memory)).await;
    assert!(
        told.contains("storage File, but the options ask for Memory"),
        "{told}"
    );
    let told = unfit(options().lease(Duration::from_secs(9))).await;
    assert!(
        told.contains("ack wait 1s, but the options ask for 9s"),
        "{told}"
    );
    let jetstream = jetstream::new(servers.client().await);
    let queue = jetstream.get_stream("accepted_queue").await.unwrap();
    let mut limited = queue.cached_info().config.clone();
    limited.max_bytes = 1 << 20;
    jetstream.update_stream(limited).await.unwrap();
    let told = unfit(options()).await;
    assert!(
        told.contains("byte limit 1048576, but the options ask for 0"),
        "{told}"
    );
    let elsewhere = options().prefix("other").storage(Storage::Memory);
    NatsStore::connect(servers.client().await, elsewhere)
        .await
        .unwrap();
}

/// Servers up to 2.9.17 that are killed, and find a purge in their log when they are back, remove all that is older in
/// the stream.
#[tokio::test]
async fn bodies_are_removed_and_none_by_a_purge() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().inline(1_000);
    let web = process(&servers, options.clone(), Jobs::builder()).await;
    let worker = process(&servers, options, Jobs::builder()).await;
    let site = served(&web);
    let client = servers.client().await;
    let mut purges = client.subscribe("$JS.API.STREAM.PURGE.>").await.unwrap();
    let asked = client.subscribe("$JS.API.STREAM.MSG.*.accepted_requests");
    let asked = asked.await.unwrap();
    client.flush().await.unwrap();
    let mut large = post("/large");
    *large.body_mut() = Body::from(vec![7; 600_000]);
    let accepted = send(&site, large).await;
    let bodies = async || {
        let mut left = messages(&servers).await;
        left.retain(|(stream, _)| stream == "accepted_requests" || stream == "accepted_results");
        left
    };
    assert_eq!(bodies().await, [("accepted_requests".to_owned(), 3)]);
    let answer = inner(async |_| {
        let mut large = ok("")?;
        *large.body_mut() = Body::from(vec![8; 700_000]);
        Ok::<_, Failed>(large)
    });
    work(&worker, answer);
    ended(&site, accepted.location()).await;
    until(async || bodies().await == [("accepted_results".to_owned(), 3)]).await;
    // What the worker has read it need not read again to remove it.
    let asked = asked.take(6).map(|asked| {
        let verb = asked.subject.split('.').nth(4);
        verb.map(str::to_owned).unwrap_or_default()
    });
    let asked: Vec<_> = asked.collect().await;
    assert_eq!(asked, ["GET", "GET", "GET", "DELETE", "DELETE", "DELETE"]);
    let delete = request("DELETE", accepted.location());
    assert_eq!(send(&site, delete).await.status, StatusCode::NO_CONTENT);
    assert_eq!(bodies().await, []);
    client.flush().await.unwrap();
    assert!(purges.next().now_or_never().is_none());
}

#[tokio::test]
async fn many_processes_connect_to_a_new_cluster_at_a_time() {
    let Some(servers) = Servers::start(3).await else {
        return;
    };
    let options = options().replicas(3);
    let mut connecting = JoinSet::new();
    for _ in 0..6 {
        let client = servers.client().await;
        connecting.spawn(NatsStore::connect(client, options.clone()));
    }
    while let Some(connected) = connecting.join_next().await {
        connected.unwrap().unwrap();
    }
    let jetstream = jetstream::new(servers.client().await);
    for name in [
        "accepted_queue",
        "KV_accepted_jobs",
        "accepted_requests",
        "accepted_results",
    ] {
        let stream = jetstream.get_stream(name).await.unwrap();
        assert_eq!(stream.cached_info().config.num_replicas, 3, "{name}");
    }
    let more = NatsStore::connect(servers.client().await, options.prefix("more").replicas(5)).await;
    match more {
        Err(NatsError::Unavailable(_)) => {}
        other => panic!("three servers have five replicas: {other:?}"),
    }
}

#[tokio::test]
async fn a_key_whose_job_was_never_made_makes_it() {
    let Some(pair) = Pair::start(options()).await else {
        return;
    };
    let keyed = || with(post("/it"), &[("idempotency-key", "\"k\"")]);
    let accepted = send(&pair.site, keyed()).await;
    // As if the process had died between the key and the request.
    let queue = stream(&pair.servers, "accepted_queue").await;
    queue.purge().await.unwrap();
    assert_eq!(
        send(&pair.site, get(accepted.location())).await.status,
        StatusCode::NOT_FOUND
    );
    let again = send(&pair.site, keyed()).await;
    assert_eq!(again.location(), accepted.location());
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    work(&pair.worker, counting(&Counter::default(), "done"));
    let end = ended(&pair.site, accepted.location()).await;
    assert_eq!(end.json()["status"], "succeeded");
}

#[tokio::test]
async fn a_key_whose_job_was_never_made_makes_it_while_a_server_is_down() {
    let Some(mut servers) = Servers::start(3).await else {
        return;
    };
    let options = options().replicas(3);
    let web = process(&servers, options, Jobs::builder()).await;
    let site = served(&web);
    let keyed = || with(post("/it"), &[("idempotency-key", "\"k\"")]);
    let accepted = send(&site, keyed()).await;
    let queue = stream(&servers, "accepted_queue").await;
    queue.purge().await.unwrap();
    servers.whole(&["accepted_queue", "KV_accepted_jobs"]).await;
    servers.kill_node(2);
    // A leader may have gone.
    let mut again = None;
    until(async || {
        let answer = send(&site, keyed()).await;
        again = (answer.status == StatusCode::ACCEPTED).then(|| answer.location().to_owned());
        again.is_some()
    })
    .await;
    assert_eq!(again.as_deref(), Some(accepted.location()));
}

#[tokio::test]
async fn no_more_is_queued_than_may_be() {
    let Some(pair) = Pair::start(options().max_queued(5)).await else {
        return;
    };
    let mut accepted = Vec::new();
    // What is written while the queue is asked may be counted twice for a second.
    until(async || {
        let answer = send(&pair.site, post("/it")).await;
        match answer.status {
            StatusCode::ACCEPTED => accepted.push(answer.location().to_owned()),
            _ => {
                assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
                assert_eq!(
                    answer.json()["type"],
                    "urn:problem-type:tower-accepted:full"
                );
            }
        }
        accepted.len() == 5
    })
    .await;
    // And never one more, however often the queue is asked.
    for _ in 0..100 {
        let full = send(&pair.site, post("/it")).await;
        assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE, "{full:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    work(&pair.worker, counting(&Counter::default(), "done"));
    for location in &accepted {
        ended(&pair.site, location).await;
    }
    until(async || send(&pair.site, post("/it")).await.status == StatusCode::ACCEPTED).await;
}

#[tokio::test]
async fn without_a_server_it_is_503_and_with_it_everything_is_there_again() {
    let Some(mut servers) = Servers::one().await else {
        return;
    };
    let options = options().ack_timeout(Duration::from_millis(300));
    let web = process(&servers, options.clone(), Jobs::builder()).await;
    let worker = process(&servers, options, Jobs::builder()).await;
    let site = served(&web);
    let accepted = send(&site, post("/it")).await;
    servers.kill_node(0);
    let refused = send(&site, post("/it")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.header("retry-after").is_some());
    let asked = send(&site, get(accepted.location())).await;
    assert_eq!(asked.status, StatusCode::SERVICE_UNAVAILABLE);
    work(&worker, counting(&Counter::default(), "done"));
    servers.start_node(0);
    until(async || {
        let answer = send(&site, get(accepted.location())).await;
        answer.status == StatusCode::OK && answer.json()["status"] == "succeeded"
    })
    .await;
}

#[tokio::test]
async fn a_job_that_was_canceled_is_nothing_else_later_though_its_call_goes_on() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let options = options().retain(Duration::from_secs(3));
    let store = NatsStore::connect(servers.client().await, options).await;
    let store = store.unwrap();
    let (head, _) = post("/it").into_parts();
    let new = NewJob::new(JobId::random());
    let asked = store.record(&head, &Bytes::new(), None);
    store.accept(&new, asked).await.unwrap();
    let ticket = store.next(1).await.unwrap().pop().unwrap();
    let work = store.claim(ticket).await.unwrap().unwrap();
    store.cancel(new.id).await.unwrap();
    until(async || match store.get(new.id).await.unwrap() {
        Lookup::Found(job) => {
            assert_eq!(job.status, Status::Canceled);
            false
        }
        Lookup::Gone(_) => false,
        Lookup::Unknown => true,
    })
    .await;
    drop(work);
}
