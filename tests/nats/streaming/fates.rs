//! What becomes of an output whose job is lost, requeued, canceled, deleted or expired.

use std::{future::poll_fn, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::Method;
use tokio::{
    join,
    time::{sleep, timeout},
};
use tower_accepted::{
    ErrorCode, JobId,
    store::{Acceptance, End, Finished, Lookup, NewJob, Outcome, Queue, Revisions, Store},
};

use super::{
    STEP_TIMEOUT, accept, body, claim_new, claim_next, enqueue, next_bytes, next_data, output,
    publish_part, read, respond, respond_whole, rest, snapshot, stored_messages, write,
};
use crate::{
    site::{Deployment, options, or_skip, until},
    streams::{RESULTS, publish, stream},
};

#[tokio::test]
async fn part_of_a_dead_process_is_readable_until_a_rerun() {
    let nats = or_skip!(Deployment::start(options()));
    let [first, second, other] = [nats.store().await, nats.store().await, nats.store().await];
    let id = JobId::random();
    enqueue(&first, id).await;
    let work = claim_next(&first).await;
    let mut writer = respond(&first, &work.claim);
    publish_part(&mut writer, output(0, 1, 0..500)).await;
    let mut early = body(&other, id, 100).await;
    assert_eq!(next_bytes(&mut early, 400).await, output(0, 1, 100..500));
    // The process dies.
    drop((writer, work));
    let reading = read(&other, id, 0).await.expect("a part");
    assert_eq!((reading.run, reading.available), (1, 500));
    let mut late = reading.response.into_body();
    assert_eq!(next_bytes(&mut late, 500).await, output(0, 1, 0..500));
    assert!(next_data(&mut late).now_or_never().is_none());

    let work = claim_next(&second).await;
    assert_eq!(work.attempt, 2);
    let mut writer = respond(&second, &work.claim);
    publish_part(&mut writer, output(0, 2, 0..300)).await;
    for reader in [early, late] {
        assert_eq!(rest(reader).await, (Vec::new(), true));
    }
    let reading = read(&other, id, 7).await.expect("a part");
    assert_eq!(reading.run, 2);
    respond_whole(&second, &work.claim, writer).await;
    let result = rest(reading.response.into_body()).await;
    assert_eq!(result, (output(0, 2, 7..300).to_vec(), false));
    // The parts of the first call are removed, and the second call has one part.
    assert_eq!(stored_messages(&nats).await, 1);
}

#[tokio::test]
async fn part_of_a_lost_job_is_readable() {
    let nats = or_skip!(Deployment::start(options()));
    let (first, second) = (nats.store().await, nats.store().await);
    let new = NewJob::new(JobId::random());
    let accepted = accept(&first, &new, Method::POST).await;
    assert!(matches!(accepted, Acceptance::Queued));
    let work = claim_next(&first).await;
    let mut writer = respond(&first, &work.claim);
    publish_part(&mut writer, output(0, 1, 0..70_000)).await;
    publish_part(&mut writer, output(0, 1, 70_000..90_000)).await;
    let mut early = body(&second, new.id, 0).await;
    assert!(next_bytes(&mut early, 90_000).await == output(0, 1, 0..90_000));
    drop((writer, work));
    until(async || {
        for ticket in second.next(1).await.unwrap() {
            assert!(second.claim(ticket).await.unwrap().is_none());
        }
        snapshot(&second, new.id).await.status.is_ended()
    })
    .await;
    let job = snapshot(&second, new.id).await;
    assert_eq!(job.error.map(|failure| failure.code), Some(ErrorCode::Lost));
    assert_eq!(job.partial.map(|part| part.content_length), Some(90_000));
    assert_eq!(rest(early).await, (Vec::new(), true));
    let part = rest(body(&second, new.id, 80_000).await).await;
    assert!(part == (output(0, 1, 80_000..90_000).to_vec(), true));
}

#[tokio::test]
async fn output_of_a_requeued_job_is_removed() {
    let nats = or_skip!(Deployment::start(options()));
    let (first, second) = (nats.store().await, nats.store().await);
    let id = JobId::random();
    enqueue(&first, id).await;
    let work = claim_next(&first).await;
    let mut writer = respond(&first, &work.claim);
    publish_part(&mut writer, output(0, 1, 0..500)).await;
    let mut early = body(&second, id, 0).await;
    assert_eq!(next_bytes(&mut early, 500).await, output(0, 1, 0..500));
    drop(writer);
    let end = End::new(Outcome::NoResponse(ErrorCode::Shutdown));
    let finished = first.finish(&work.claim, end).await.unwrap();
    assert_eq!(finished, Finished::HandedBack);
    assert_eq!(stored_messages(&nats).await, 0);
    assert_eq!(rest(early).await, (Vec::new(), true));
    let mut waiting = pin!(second.read(id, 0));
    assert!(waiting.as_mut().now_or_never().is_none());
    let work = claim_next(&second).await;
    let mut writer = respond(&second, &work.claim);
    publish_part(&mut writer, output(0, 2, 0..5)).await;
    let reading = timeout(STEP_TIMEOUT, waiting).await.unwrap().unwrap();
    let reading = reading.expect("a response");
    assert_eq!(reading.run, 2);
    respond_whole(&second, &work.claim, writer).await;
    let result = rest(reading.response.into_body()).await;
    assert_eq!(result, (output(0, 2, 0..5).to_vec(), false));
}

/// A cancel in another process decides which part is the last one.
#[tokio::test]
async fn part_of_a_canceled_job_is_all_that_readers_get() {
    let nats = or_skip!(Deployment::start(options()));
    let (producer, other) = (nats.store().await, nats.store().await);
    for pieces in 0..30 {
        let (id, claim) = claim_new(&producer).await;
        let mut writer = respond(&producer, &claim);
        publish_part(&mut writer, output(pieces, 1, 0..10)).await;
        let reader = body(&other, id, 0).await;
        let producing = async {
            let mut at = 10;
            let canceled = poll_fn(|cx| producer.poll_canceled(&claim, cx));
            let mut canceled = pin!(canceled);
            while canceled.as_mut().now_or_never().is_none() {
                publish_part(&mut writer, output(pieces, 1, at..at + 10)).await;
                at += 10;
                sleep(Duration::from_micros(100)).await;
            }
            drop(writer);
            let end = End::new(Outcome::NoResponse(ErrorCode::Canceled));
            producer.finish(&claim, end).await.unwrap()
        };
        let canceling = async {
            sleep(Duration::from_micros(pieces * 300)).await;
            other.cancel(id, &Revisions::Any).await.unwrap()
        };
        let (finished, canceled, (read, is_broken)) = join!(producing, canceling, rest(reader));
        assert_eq!(finished, Finished::Late);
        let canceled = canceled.and_then(Lookup::found).expect("the job");
        let part = canceled.partial.expect("a part").content_length as usize;
        assert!(is_broken);
        assert_eq!(read.len(), part);
        assert_eq!(read, output(pieces, 1, 0..part));
        let again = rest(body(&producer, id, 0).await).await;
        assert_eq!(again, (read, true));
    }
}

#[tokio::test]
async fn deleted_job_leaves_no_output() {
    let nats = or_skip!(Deployment::start(options()));
    let (producer, other) = (nats.store().await, nats.store().await);
    // A result, a part of one, and the output of a running call.
    for (is_ended, is_whole) in [(true, true), (true, false), (false, false)] {
        let (id, claim) = claim_new(&producer).await;
        let mut writer = respond(&producer, &claim);
        for start in 0..20 {
            publish_part(&mut writer, output(0, 1, start..start + 1)).await;
        }
        let mut reader = body(&other, id, 0).await;
        next_bytes(&mut reader, 20).await;
        let failed = || End::new(Outcome::NoResponse(ErrorCode::BodyError));
        let mut writer = Some(writer);
        if is_ended {
            let end = match writer.take().filter(|_| is_whole) {
                Some(writer) => End::new(Outcome::Response(writer)),
                None => failed(),
            };
            let finished = producer.finish(&claim, end).await.unwrap();
            assert_eq!(finished, Finished::First);
            assert!(stored_messages(&nats).await > 0);
        }
        other.forget(id, &Revisions::Any).await.unwrap();
        if !is_ended {
            assert_eq!(rest(reader).await, (Vec::new(), true));
            drop(writer);
            let finished = producer.finish(&claim, failed()).await.unwrap();
            assert_eq!(finished, Finished::Late);
        }
        assert_eq!(stored_messages(&nats).await, 0);
        assert!(read(&other, id, 0).await.is_none());
    }
}

#[tokio::test]
async fn output_outlasts_its_call_and_expires_with_its_job() {
    let nats = or_skip!(Deployment::start(options().retain(Duration::from_secs(2))));
    let (producer, other) = (nats.store().await, nats.store().await);
    let (id, claim) = claim_new(&producer).await;
    let mut writer = respond(&producer, &claim);
    let whole = output(0, 1, 0..1_000);
    publish_part(&mut writer, whole.slice(..500)).await;
    // A message that nobody writes again expires while the call runs.
    let unrenewed = "accepted.result.unrenewed.0.0".to_owned();
    publish(&nats.servers, vec![(unrenewed.clone(), Bytes::new())]).await;
    let results = stream(&nats.servers, RESULTS).await;
    until(async || {
        let found = results.get_last_raw_message_by_subject(&unrenewed).await;
        found.is_err()
    })
    .await;
    let mut reader = body(&other, id, 0).await;
    assert_eq!(next_bytes(&mut reader, 500).await, whole[..500]);
    write(&mut writer, whole.slice(500..)).await;
    respond_whole(&producer, &claim, writer).await;
    assert_eq!(rest(reader).await, (whole[500..].to_vec(), false));
    drop(claim);
    // Whole for as long as there is a job.
    until(async || match read(&other, id, 0).await {
        Some(reading) => {
            let result = rest(reading.response.into_body()).await;
            assert_eq!(result, (whole.to_vec(), false));
            false
        }
        None => true,
    })
    .await;
    until(async || stored_messages(&nats).await == 0).await;
}
