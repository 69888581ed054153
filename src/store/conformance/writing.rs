//! Checks of responses that are read before their job has ended.

use std::{pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::{join, time::timeout};

use super::{
    fixtures::{
        cancel, claim_new, ensure_response_head, ensure_result, ensure_same_body,
        ensure_same_fields, finish, finish_with, finish_without, read, read_to_end, response_head,
        trailers, write,
    },
    violation::{CheckResult, Violation, ensure, ensure_eq, within},
};
use crate::{
    job::{ErrorCode, JobId},
    store::{End, Outcome, Reading, ResultBody, Store, Writer},
};

/// The time limit for an unfinished response to be readable. A store that takes longer counts as
/// one that publishes a response only at the end of its job.
const PUBLISH_TIMEOUT: Duration = Duration::from_millis(500);

const FIRST: &[u8] = b"first, ";
const REST: &[u8] = b"and the rest";

/// Reads the response of an unfinished job, if the store publishes it.
async fn read_early<S: Store>(store: &S, id: JobId, from: u64) -> CheckResult<Option<Reading>> {
    match timeout(PUBLISH_TIMEOUT, store.read(id, from)).await {
        Ok(reading) => {
            let reading = reading?;
            ensure(
                reading.is_some(),
                "an unfinished job not to lack a response",
            )?;
            Ok(reading)
        }
        Err(_) => Ok(None),
    }
}

/// Reads the next `length` bytes of a body.
async fn read_exactly(body: &mut ResultBody, length: usize) -> CheckResult<Bytes> {
    let mut all = BytesMut::new();
    while all.len() < length {
        let frame = within("what was flushed", body.frame()).await?;
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(Violation::new(format!("the body failed: {error}"))),
            None => return Err(Violation::new("expected more of an unfinished response")),
        };
        if let Ok(data) = frame.into_data() {
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}

pub(super) async fn reader_waits_for_the_response<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    let mut reading = pin!(store.read(id, 0));
    let early = timeout(PUBLISH_TIMEOUT, reading.as_mut()).await;
    ensure(early.is_err(), "a read to wait for the response")?;
    finish_with(&store, &claim, "done").await?;
    let reading = within("a waiting read to complete", reading).await??;
    let Some(reading) = reading else {
        return Err(Violation::new(
            "expected the waiting read to get the response",
        ));
    };
    ensure_same_body(&read_to_end(reading).await?.body, b"done")
}

pub(super) async fn waiting_reader_learns_of_a_cancel<S: Store>(store: S) -> CheckResult {
    let (id, _claim) = claim_new(&store).await?;
    let reading = within("a waiting read to complete", store.read(id, 0));
    let (reading, canceled) = join!(reading, cancel(&store, id));
    canceled?;
    ensure(reading??.is_none(), "no result of a canceled job")
}

pub(super) async fn reader_gets_the_whole_response<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    let mut writer = store.respond(&claim, response_head());
    write(&mut writer, Bytes::from_static(FIRST)).await?;
    writer.flush();
    let early = read_early(&store, id, 0).await?;
    let later = read_early(&store, id, 3).await?;
    ensure_eq("both reads are early", later.is_some(), early.is_some())?;

    let write_rest = async |writer: &mut S::Writer| {
        write(writer, Bytes::from_static(REST)).await?;
        writer.push_trailers(trailers());
        CheckResult::Ok(())
    };
    let whole = [FIRST, REST].concat();
    if let (Some(early), Some(later)) = (early, later) {
        let is_possible = early.available <= FIRST.len() as u64;
        ensure(is_possible, "no more bytes than were written")?;
        let run = early.run;
        let (head, mut body) = early.response.into_parts();
        ensure_response_head(&head)?;
        let first = read_exactly(&mut body, FIRST.len()).await?;
        ensure_same_body(&first, FIRST)?;
        let more = timeout(Duration::from_millis(50), body.frame()).await;
        ensure(more.is_err(), "an early read to wait for more")?;

        write_rest(&mut writer).await?;
        finish(&store, &claim, End::new(Outcome::Response(writer))).await?;
        let rest = within("the rest of the body", body.collect()).await?;
        let rest = rest.map_err(|error| Violation::new(format!("the body failed: {error}")))?;
        let rest_trailers = rest.trailers().cloned().unwrap_or_default();
        ensure_same_fields("trailers of an early read", &rest_trailers, &trailers())?;
        ensure_same_body(&rest.to_bytes(), REST)?;
        let later = read_to_end(later).await?;
        ensure_same_body(&later.body, &whole[3..])?;
        let after = ensure_result(read(&store, id, 0).await?)?;
        ensure_eq("run", after.run, run)?;
    } else {
        write_rest(&mut writer).await?;
        finish(&store, &claim, End::new(Outcome::Response(writer))).await?;
    }
    let result = ensure_result(read(&store, id, 0).await?)?;
    ensure_response_head(&result.head)?;
    ensure_same_body(&result.body, &whole)
}

pub(super) async fn broken_response_is_an_error<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    let mut writer = store.respond(&claim, response_head());
    write(&mut writer, Bytes::from_static(FIRST)).await?;
    writer.flush();
    let early = read_early(&store, id, 0).await?;
    drop(writer);
    finish_without(&store, &claim, ErrorCode::BodyError).await?;
    if let Some(early) = early {
        let body = early.response.into_body().collect();
        let body = within("the end of a broken body", body).await?;
        ensure(body.is_err(), "an early read of a broken response to fail")?;
    }
    let result = read(&store, id, 0).await?;
    ensure(result.is_none(), "no result of a broken response")
}
