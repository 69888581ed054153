//! Checks of the results of ended jobs.

use bytes::Bytes;
use http::HeaderMap;

use super::{
    fixtures::{
        bytes, claim_new, ensure_response_head, ensure_result, ensure_same_body,
        ensure_same_fields, finish, finish_without, found, read, response_head, trailers, write,
    },
    violation::{CheckResult, ensure, ensure_eq},
};
use crate::{
    job::{ErrorCode, JobId, Status},
    store::{End, Finished, Outcome, Store, Writer},
};

/// Ends a new job with a response of these chunks, and with trailers.
async fn end_with_chunks<S: Store>(store: &S, chunks: Vec<Bytes>) -> CheckResult<JobId> {
    let (id, claim) = claim_new(store).await?;
    let mut writer = store.respond(&claim, response_head(), None);
    for (index, chunk) in chunks.into_iter().enumerate() {
        write(&mut writer, chunk).await?;
        if index % 3 == 1 {
            writer.flush();
        }
    }
    writer.push_trailers(trailers());
    let finished = finish(store, &claim, End::new(Outcome::Response(writer))).await?;
    ensure_eq("the first end", finished, Finished::First)?;
    Ok(id)
}

async fn comes_back<S: Store>(store: &S, chunks: Vec<Bytes>) -> CheckResult {
    let expected = chunks.concat();
    let id = end_with_chunks(store, chunks).await?;
    let job = found(store, id).await?;
    ensure_eq("status", job.status, Status::Failed)?;
    let reason = job.error.map(|failure| failure.code);
    ensure_eq("error code", reason, Some(ErrorCode::HttpError))?;
    let shown = job.response.map(|response| {
        let fields = (response.content_type, response.retry_after);
        (response.status, fields, response.content_length)
    });
    let head = response_head();
    let content_type = head.headers.get("content-type").cloned();
    let fields = (content_type, Some("120".into()));
    let expected_shown = (head.status, fields, expected.len() as u64);
    ensure_eq("response of the snapshot", shown, Some(expected_shown))?;

    let result = ensure_result(read(store, id, 0).await?)?;
    ensure_response_head(&result.head)?;
    ensure_same_body(&result.body, &expected)?;
    ensure_eq("available", result.available, expected.len() as u64)?;
    ensure_trailers(result.trailers.as_ref())
}

fn ensure_trailers(actual: Option<&HeaderMap>) -> CheckResult {
    let none = HeaderMap::new();
    ensure_same_fields("trailers", actual.unwrap_or(&none), &trailers())
}

pub(super) async fn empty_result_comes_back<S: Store>(store: S) -> CheckResult {
    comes_back(&store, Vec::new()).await?;
    comes_back(&store, vec![Bytes::new()]).await?;
    // Without trailers too.
    let (id, claim) = claim_new(&store).await?;
    let writer = store.respond(&claim, response_head(), None);
    finish(&store, &claim, End::new(Outcome::Response(writer))).await?;
    let result = ensure_result(read(&store, id, 0).await?)?;
    ensure_same_body(&result.body, b"")?;
    ensure(result.trailers.is_none(), "no trailers")
}

pub(super) async fn small_result_comes_back<S: Store>(store: S) -> CheckResult {
    comes_back(&store, vec![Bytes::from_static(b"\0any \xff bytes\r\n")]).await
}

pub(super) async fn large_result_comes_back<S: Store>(store: S) -> CheckResult {
    comes_back(&store, vec![bytes(3_000_001)]).await
}

pub(super) async fn result_in_many_chunks_comes_back<S: Store>(store: S) -> CheckResult {
    let mut all = bytes(700_000);
    let mut chunks = Vec::new();
    while !all.is_empty() {
        let length = chunks.len() * 37 % 4_096;
        chunks.push(all.split_to(length.min(all.len())));
    }
    comes_back(&store, chunks).await
}

pub(super) async fn result_is_read_from_any_byte<S: Store>(store: S) -> CheckResult {
    for chunks in [
        vec![Bytes::from_static(b"short")],
        vec![bytes(150_000), bytes(33), bytes(150_000)],
    ] {
        let expected = chunks.concat();
        let id = end_with_chunks(&store, chunks).await?;
        let length = expected.len() as u64;
        for from in [0, 1, length / 2, length - 1, length, length + 1, u64::MAX] {
            let result = ensure_result(read(&store, id, from).await?)?;
            let rest = &expected[from.min(length) as usize..];
            ensure_same_body(&result.body, rest)?;
            ensure_eq("run", result.run, 1)?;
            ensure_eq("available", result.available, length)?;
            ensure_response_head(&result.head)?;
            ensure_trailers(result.trailers.as_ref())?;
        }
    }
    Ok(())
}

pub(super) async fn job_without_a_response_has_no_result<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    finish_without(&store, &claim, ErrorCode::Panic).await?;
    for from in [0, 1] {
        let result = read(&store, id, from).await?;
        ensure(result.is_none(), "no result of a job without a response")?;
    }
    Ok(())
}
