//! All claims of this process, and the handle that ends one when it is dropped.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::active::ActiveClaim;
use crate::{JobId, store::Charge};

/// The claims of this process, for the tasks that renew leases and write records.
#[derive(Default)]
pub(super) struct ActiveClaims {
    /// Keyed by job and claim: a process may claim a job that it runs already, if the queue
    /// delivers the request again. Held for a look-up or a copy, never across an await.
    claims: Mutex<BTreeMap<(JobId, u64), Arc<ActiveClaim>>>,
    /// Notified if a claim's record must be written soon.
    pub(super) write_requested: Notify,
}

impl ActiveClaims {
    pub(super) fn all(&self) -> Vec<Arc<ActiveClaim>> {
        self.claims.lock().values().cloned().collect()
    }

    /// Returns this process's claims of one job.
    pub(super) fn of_job(&self, id: JobId) -> Vec<Arc<ActiveClaim>> {
        let claims = self.claims.lock();
        let of_job = claims.range((id, 0)..=(id, u64::MAX));
        of_job.map(|(_, claim)| claim.clone()).collect()
    }
}

/// The right to end a job in JetStream.
///
/// The store renews the job's lease until the claim is dropped. If it is dropped before the job has
/// ended, the lease expires and another process gets the request.
pub struct NatsClaim {
    claims: Arc<ActiveClaims>,
    pub(super) active: Arc<ActiveClaim>,
    /// The charge of the request, if it did not come from the queue.
    pub(super) charge: Option<Charge>,
    /// Held for a single poll.
    lost: Mutex<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl NatsClaim {
    pub(super) fn new(claims: &Arc<ActiveClaims>, active: ActiveClaim) -> Self {
        let active = Arc::new(active);
        let key = (active.id, active.claim);
        claims.claims.lock().insert(key, active.clone());
        Self {
            claims: claims.clone(),
            charge: None,
            lost: Mutex::new(Box::pin(active.lost.clone().cancelled_owned())),
            active,
        }
    }

    /// Completes once another process has ended the job or taken it over.
    pub(super) fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.lost.lock().as_mut().poll(cx)
    }
}

impl Drop for NatsClaim {
    fn drop(&mut self) {
        let key = (self.active.id, self.active.claim);
        self.claims.claims.lock().remove(&key);
        drop(self.active.take_output());
    }
}

impl fmt::Debug for NatsClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsClaim").field(&self.active.id).finish()
    }
}
