//! Checks of the budget of this process's memory.

use super::{
    fixtures::{
        bytes, claim_new, ensure_result, finish, finish_without, forget, found, read,
        response_head, room, until, write,
    },
    violation::{CheckResult, ensure, ensure_eq, within},
};
use crate::{
    job::{ErrorCode, Status},
    limit::Purpose,
    store::{End, Outcome, Store, Writer},
};

/// The bytes that a store may keep after a delete, for example for a block of an index.
const MAX_REMAINDER: usize = 64 * 1024;

pub(super) async fn reserved_bytes_are_released<S: Store>(store: S) -> CheckResult {
    let before = store.budget().used();
    let charge = within("a charge", store.reserve(1_000, Purpose::Upload)).await?;
    ensure(charge.is_some(), "room for 1,000 bytes")?;
    ensure_eq("bytes in use", store.budget().used(), before + 1_000)?;
    let limit = store.budget().limit();
    let too_much = within("a refusal", store.reserve(limit + 1, Purpose::Upload)).await?;
    ensure(too_much.is_none(), "no room beyond the limit")?;
    drop(charge);
    ensure_eq("bytes in use", store.budget().used(), before)
}

pub(super) async fn response_without_room_is_refused<S: Store>(store: S) -> CheckResult {
    let (id, claim) = claim_new(&store).await?;
    let mut writer = store.respond(&claim, response_head(), None);
    write(&mut writer, bytes(100)).await?;
    let limit = store.budget().limit();
    store.budget().set_limit(store.budget().used() + 1_000);
    let room = room(&mut writer, 1_000_000).await?;
    ensure(room.is_err(), "no room for a chunk beyond the limit")?;
    drop(writer);
    store.budget().set_limit(limit);
    finish_without(&store, &claim, ErrorCode::ResultTooLarge).await?;
    let job = found(&store, id).await?;
    ensure_eq("status", job.status, Status::Failed)?;
    let reason = job.error.map(|failure| failure.code);
    ensure_eq("error code", reason, Some(ErrorCode::ResultTooLarge))
}

pub(super) async fn deleted_job_releases_its_bytes<S: Store>(store: S) -> CheckResult {
    let before = store.budget().used();
    let (id, claim) = claim_new(&store).await?;
    let mut writer = store.respond(&claim, response_head(), None);
    write(&mut writer, bytes(200_000)).await?;
    writer.flush();
    write(&mut writer, bytes(100_000)).await?;
    finish(&store, &claim, End::new(Outcome::Response(writer))).await?;
    drop(claim);
    let result = ensure_result(read(&store, id, 0).await?)?;
    ensure_eq("length of the body", result.body.len(), 300_000)?;
    drop(result);
    forget(&store, id).await?;
    let expected = "the bytes of a deleted job to be released";
    until(expected, || store.budget().used() <= before + MAX_REMAINDER).await
}
