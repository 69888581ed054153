//! Checks of responses that are read before their job has ended.

use std::{pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::{join, time::timeout};

use super::{
    fixtures::{
        bytes, cancel, claim_new, ended, ensure_response_head, ensure_result, ensure_same_body,
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
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(1);

const FIRST: &[u8] = b"first, ";
const REST: &[u8] = b"and the rest";

/// Reads the response of an unfinished job, if the store publishes it.
pub(super) async fn read_early<S: Store>(
    store: &S,
    id: JobId,
    from: u64,
) -> CheckResult<Option<Reading>> {
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
    let mut writer = store.respond(&claim, response_head(), None);
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

/// Reads a body until it breaks off, and returns what came before.
pub(super) async fn read_to_break(mut body: ResultBody) -> CheckResult<Bytes> {
    let mut all = BytesMut::new();
    loop {
        match within("the end of a broken body", body.frame()).await? {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    all.extend_from_slice(&data);
                }
            }
            Some(Err(_)) => return Ok(all.freeze()),
            None => {
                return Err(Violation::new(
                    "expected a broken response to end as an error",
                ));
            }
        }
    }
}

/// Fails unless an ended job has the first `length` bytes of `written`, or nothing if the store
/// publishes no unfinished response.
async fn ensure_part<S: Store>(
    store: &S,
    id: JobId,
    written: &[u8],
    is_published: bool,
) -> CheckResult {
    let job = ended(store, id).await?;
    ensure(job.response.is_none(), "no response of a broken job")?;
    ensure_eq("a part is kept", job.partial.is_some(), is_published)?;
    for from in [0, 3, written.len() as u64] {
        let reading = within("a part to be read", store.read(id, from)).await??;
        let (Some(reading), Some(part)) = (reading, &job.partial) else {
            return ensure(!is_published, "a part that was published to be kept");
        };
        ensure_eq("status of the part", part.status, response_head().status)?;
        ensure_eq(
            "length of the part",
            part.content_length,
            written.len() as u64,
        )?;
        ensure_eq("available", reading.available, part.content_length)?;
        let (head, body) = reading.response.into_parts();
        ensure_response_head(&head)?;
        let rest = read_to_break(body).await?;
        ensure_same_body(&rest, &written[from as usize..])?;
    }
    Ok(())
}

pub(super) async fn broken_response_is_kept<S: Store>(store: S) -> CheckResult {
    for written in [Bytes::from_static(FIRST), bytes(300_000)] {
        let (id, claim) = claim_new(&store).await?;
        let mut writer = store.respond(&claim, response_head(), None);
        write(&mut writer, written.clone()).await?;
        writer.flush();
        let early = read_early(&store, id, 0).await?;
        let is_published = early.is_some();
        drop(writer);
        finish_without(&store, &claim, ErrorCode::BodyError).await?;
        if let Some(early) = early {
            let part = read_to_break(early.response.into_body()).await?;
            ensure_same_body(&part, &written)?;
        }
        ensure_part(&store, id, &written, is_published).await?;
    }
    Ok(())
}

pub(super) async fn canceled_response_is_kept<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    let mut writer = store.respond(&claim, response_head(), Some(1_000_000));
    write(&mut writer, Bytes::from_static(FIRST)).await?;
    writer.flush();
    let early = read_early(&store, id, 0).await?;
    let is_published = early.is_some();
    cancel(&store, id).await?;
    // The call learns of it later.
    write(&mut writer, Bytes::from_static(REST)).await?;
    writer.flush();
    drop(writer);
    finish_without(&store, &claim, ErrorCode::Canceled).await?;
    if let Some(early) = early {
        let part = read_to_break(early.response.into_body()).await?;
        ensure_same_body(&part, FIRST)?;
    }
    ensure_part(&store, id, FIRST, is_published).await
}

pub(super) async fn declared_length_is_known<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    let whole = [FIRST, REST].concat();
    let mut writer = store.respond(&claim, response_head(), Some(whole.len() as u64));
    write(&mut writer, Bytes::from_static(FIRST)).await?;
    writer.flush();
    let early = read_early(&store, id, 3).await?;
    if let Some(early) = &early {
        let left = early.response.body().len();
        ensure_eq(
            "length of an early read",
            left,
            Some(whole.len() as u64 - 3),
        )?;
    }
    write(&mut writer, Bytes::from_static(REST)).await?;
    finish(&store, &claim, End::new(Outcome::Response(writer))).await?;
    match early {
        Some(early) => ensure_same_body(&read_to_end(early).await?.body, &whole[3..]),
        None => Ok(()),
    }
}

pub(super) async fn many_readers_get_the_whole_response<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    let mut writer = store.respond(&claim, response_head(), None);
    write(&mut writer, Bytes::from_static(FIRST)).await?;
    writer.flush();
    let mut early = Vec::new();
    for from in 0..20 {
        match read_early(&store, id, from % 4).await? {
            Some(reading) => early.push((from % 4, reading)),
            None => break,
        }
    }
    let mut whole = FIRST.to_vec();
    for length in [0, 1, 70_000, 5, 200_000, 3] {
        let chunk = bytes(length);
        whole.extend_from_slice(&chunk);
        write(&mut writer, chunk).await?;
        writer.flush();
        // The first reader keeps up, and the others catch up after the end.
        if let Some((0, reading)) = early.first_mut() {
            read_exactly(reading.response.body_mut(), length).await?;
        }
    }
    finish(&store, &claim, End::new(Outcome::Response(writer))).await?;
    for (index, (from, reading)) in early.into_iter().enumerate() {
        let body = read_to_end(reading).await?.body;
        match index {
            0 => ensure(
                whole.ends_with(&body),
                "the reader that keeps up to get the end",
            )?,
            _ => ensure_same_body(&body, &whole[from as usize..])?,
        }
    }
    Ok(())
}
