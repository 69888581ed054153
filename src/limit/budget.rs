//! The budget for the bytes that a registry keeps in this process's memory.

use std::{
    fmt, mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::telemetry;

/// A limit on the bytes that a registry keeps in this process's memory.
///
/// Clones share one limit.
#[derive(Clone)]
pub struct Budget {
    pool: Arc<Pool>,
}

/// The use of bytes of a [`Budget`].
///
/// A store may give each purpose a share of its own, and may evict ended jobs for some purposes
/// only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// The body of a request that is still being read and has not been accepted.
    Upload,
    /// A job: its record, and the request that it keeps until its call has ended.
    Accepted,
    /// The response of a job, while it is collected and for as long as it is kept.
    Response,
    /// Bytes of a stored response that were read into memory to be sent to a client.
    Replay,
}

struct Pool {
    /// Only a count: no other memory depends on it, so every access is `Relaxed`. The update is one
    /// atomic step, so concurrent reservations never pass `limit`.
    used: AtomicUsize,
    /// The parts of `used`, by purpose. `Relaxed`, and read only for display.
    by_purpose: [AtomicUsize; Purpose::COUNT],
    /// Set when a registry is built. `Relaxed`: a concurrent reservation may see the earlier value.
    limit: AtomicUsize,
}

impl Purpose {
    const COUNT: usize = 4;
}

impl Drop for Pool {
    /// Subtracts the bytes that are still charged from the gauge.
    fn drop(&mut self) {
        telemetry::released(*self.used.get_mut());
    }
}

impl Budget {
    /// Creates a budget of `limit` bytes, all of them free.
    pub fn new(limit: usize) -> Self {
        Self {
            pool: Arc::new(Pool {
                used: AtomicUsize::new(0),
                by_purpose: [const { AtomicUsize::new(0) }; Purpose::COUNT],
                limit: AtomicUsize::new(limit),
            }),
        }
    }

    /// Takes `bytes`, or returns `None` if fewer are free.
    pub fn reserve(&self, bytes: usize, purpose: Purpose) -> Option<Charge> {
        self.pool.take(bytes, purpose).then(|| Charge {
            pool: self.pool.clone(),
            bytes,
            purpose,
        })
    }

    /// Releases bytes of a charge that was taken apart with [`Charge::into_parts`].
    pub(crate) fn release(&self, bytes: usize, purpose: Purpose) {
        self.pool.release(bytes, purpose);
    }

    /// Returns the number of bytes in use.
    pub fn used(&self) -> usize {
        self.pool.used.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes in use for one purpose.
    pub fn used_for(&self, purpose: Purpose) -> usize {
        self.pool.by_purpose[purpose as usize].load(Ordering::Relaxed)
    }

    /// Returns the number of bytes in total.
    pub fn limit(&self) -> usize {
        self.pool.limit.load(Ordering::Relaxed)
    }

    /// Sets the number of bytes in total.
    ///
    /// Bytes in use stay charged. With a lower limit, reservations fail until enough bytes have
    /// been released.
    pub fn set_limit(&self, bytes: usize) {
        self.pool.limit.store(bytes, Ordering::Relaxed);
    }
}

impl Pool {
    fn take(&self, bytes: usize, purpose: Purpose) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let is_taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&used| used <= limit)
            })
            .is_ok();
        if is_taken {
            self.by_purpose[purpose as usize].fetch_add(bytes, Ordering::Relaxed);
            telemetry::reserved(bytes);
        }
        is_taken
    }

    fn release(&self, bytes: usize, purpose: Purpose) {
        if bytes == 0 {
            return;
        }
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.by_purpose[purpose as usize].fetch_sub(bytes, Ordering::Relaxed);
        telemetry::released(bytes);
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("used", &self.used())
            .field("limit", &self.limit())
            .finish()
    }
}

/// Bytes taken from a [`Budget`], released on drop.
#[must_use = "dropping a charge releases its bytes"]
pub struct Charge {
    pool: Arc<Pool>,
    bytes: usize,
    purpose: Purpose,
}

impl Charge {
    /// Returns the number of bytes this holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns what the bytes are used for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Adds the bytes of `other`, a charge of the same budget, to this one and its purpose.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(
            Arc::ptr_eq(&self.pool, &other.pool),
            "charges of two budgets"
        );
        other.transfer(self.purpose);
        self.bytes += mem::take(&mut other.bytes);
    }

    /// Returns the budget and the bytes, which the caller releases with [`Budget::release`].
    pub(crate) fn into_parts(mut self) -> (Budget, usize) {
        let bytes = mem::take(&mut self.bytes);
        let pool = self.pool.clone();
        (Budget { pool }, bytes)
    }

    /// Splits off a charge of at most `bytes`.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            pool: self.pool.clone(),
            bytes,
            purpose: self.purpose,
        }
    }

    /// Uses the bytes for another purpose from now on.
    pub fn transfer(&mut self, purpose: Purpose) {
        if self.purpose != purpose {
            let count = |purpose| &self.pool.by_purpose[purpose as usize];
            count(self.purpose).fetch_sub(self.bytes, Ordering::Relaxed);
            count(purpose).fetch_add(self.bytes, Ordering::Relaxed);
            self.purpose = purpose;
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.pool.release(self.bytes, self.purpose);
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge")
            .field("bytes", &self.bytes)
            .field("purpose", &self.purpose)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_stop_at_the_limit() {
        let budget = Budget::new(100);
        let mut charge = budget.reserve(60, Purpose::Upload).expect("free");
        assert!(budget.reserve(41, Purpose::Upload).is_none());
        charge.merge(budget.reserve(40, Purpose::Response).expect("free"));
        assert_eq!((charge.bytes(), budget.used()), (100, 100));
        drop(charge.split(30));
        assert_eq!((charge.bytes(), budget.used()), (70, 70));
        drop(charge);
        assert_eq!(budget.used(), 0);
        assert!(budget.reserve(usize::MAX, Purpose::Upload).is_none());
    }

    #[test]
    fn each_purpose_is_counted_by_itself() {
        let budget = Budget::new(100);
        let used = || [Purpose::Upload, Purpose::Accepted].map(|of| budget.used_for(of));
        let mut charge = budget.reserve(60, Purpose::Upload).expect("free");
        assert_eq!(used(), [60, 0]);
        charge.transfer(Purpose::Accepted);
        assert_eq!(used(), [0, 60]);
        charge.merge(budget.reserve(10, Purpose::Upload).expect("free"));
        assert_eq!(used(), [0, 70]);
        drop(charge);
        assert_eq!(used(), [0, 0]);
    }

    #[test]
    fn parts_of_a_charge_stay_charged() {
        let budget = Budget::new(100);
        let charge = budget.reserve(60, Purpose::Accepted).expect("free");
        let (same, bytes) = charge.into_parts();
        assert_eq!((bytes, budget.used()), (60, 60));
        same.release(bytes, Purpose::Accepted);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_lower_limit_keeps_what_is_in_use() {
        let budget = Budget::new(100);
        let charge = budget.reserve(60, Purpose::Accepted).expect("free");
        budget.set_limit(50);
        assert!(budget.reserve(1, Purpose::Accepted).is_none());
        drop(charge);
        assert!(budget.reserve(50, Purpose::Accepted).is_some());
    }
}
