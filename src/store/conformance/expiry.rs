//! Checks of expired jobs, and of the keys that outlive them.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    fixtures::{POLL_INTERVAL, accept, claim, finish_with, look_up, unexpected_acceptance},
    keys::keyed,
    violation::{CheckResult, ensure_eq, within},
};
use crate::{
    job::JobId,
    store::{Acceptance, Lookup, Store},
};

/// Looks up a job until it has expired.
async fn expired<S: Store>(store: &S, id: JobId) -> CheckResult {
    let looking = async {
        while let Lookup::Found(_) = look_up(store, id).await? {
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    };
    within("the job to expire", looking).await?
}

pub(super) async fn key_outlives_its_job<S: Store>(store: S) -> CheckResult {
    let first = keyed(b"a request");
    let id = first.id;
    let claim = claim(&store, first).await?;
    finish_with(&store, &claim, "done").await?;
    expired(&store, id).await?;
    for join_only in [false, true] {
        let mut repeat = keyed(b"a request");
        repeat.join_only = join_only;
        match accept(&store, &repeat).await? {
            Acceptance::Gone => {}
            other => return Err(unexpected_acceptance("Gone", &other)),
        }
    }
    match accept(&store, &keyed(b"another request")).await? {
        Acceptance::KeyReused => Ok(()),
        other => Err(unexpected_acceptance("KeyReused", &other)),
    }
}

pub(super) async fn key_expires_after_its_time<S: Store>(store: S) -> CheckResult {
    let keep_briefly = |body: &[u8]| {
        let mut job = keyed(body);
        if let Some(key) = &mut job.key {
            key.keep_for = Some(Duration::from_millis(200));
        }
        job
    };
    let first = keep_briefly(b"a request");
    let id = first.id;
    let first_claim = claim(&store, first).await?;
    match accept(&store, &keep_briefly(b"a request")).await? {
        Acceptance::Joined(job) => ensure_eq("id of the joined job", job.id, id)?,
        other => return Err(unexpected_acceptance("Joined", &other)),
    }
    finish_with(&store, &first_claim, "done").await?;
    // The time counts from the end, and the key is then free for any request.
    let second = keep_briefly(b"another request");
    let second_id = second.id;
    let accepting = async {
        loop {
            match accept(&store, &second).await? {
                Acceptance::KeyReused => sleep(POLL_INTERVAL).await,
                Acceptance::RunHere(claim) => return Ok(claim),
                other => return Err(unexpected_acceptance("RunHere", &other)),
            }
        }
    };
    let _second_claim = within("the key to expire", accepting).await??;
    match accept(&store, &keep_briefly(b"another request")).await? {
        Acceptance::Joined(job) => ensure_eq("id of the joined job", job.id, second_id),
        other => Err(unexpected_acceptance("Joined", &other)),
    }
}
