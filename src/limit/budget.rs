use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

#[cfg(feature = "nats")]
use bytes::Bytes;

use crate::telemetry;

/// A number of bytes that everything kept in memory shares.
#[derive(Clone)]
pub struct Budget {
    pool: Arc<Pool>,
}

struct Pool {
    /// Only a count: nothing else is read on the strength of it, so every access is `Relaxed`. The
    /// update is one atomic step, so it never passes `limit`, whoever else reserves at the time.
    used: AtomicUsize,
    limit: usize,
}

impl Drop for Pool {
    /// What was kept goes with who kept it.
    fn drop(&mut self) {
        telemetry::released(*self.used.get_mut());
    }
}

impl Budget {
    /// A budget of `limit` bytes, all of them free.
    pub fn new(limit: usize) -> Self {
        let used = AtomicUsize::new(0);
        Self {
            pool: Arc::new(Pool { used, limit }),
        }
    }

    /// Takes `bytes` out, or nothing if so many are not free.
    pub fn reserve(&self, bytes: usize) -> Option<Charge> {
        self.pool.take(bytes).then(|| Charge {
            pool: self.pool.clone(),
            bytes,
        })
    }

    /// How many bytes are taken.
    pub fn used(&self) -> usize {
        self.pool.used.load(Ordering::Relaxed)
    }

    /// How many bytes there are in all.
    pub fn limit(&self) -> usize {
        self.pool.limit
    }

    /// Gives back what a [`Charge::keep`] left taken.
    pub(crate) fn release(&self, bytes: usize) {
        self.pool.release(bytes);
    }
}

impl Pool {
    fn take(&self, bytes: usize) -> bool {
        let is_taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&used| used <= self.limit)
            })
            .is_ok();
        if is_taken {
            telemetry::reserved(bytes);
        }
        is_taken
    }

    fn release(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        telemetry::released(bytes);
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("used", &self.used())
            .field("limit", &self.pool.limit)
            .finish()
    }
}

/// Bytes taken from a [`Budget`]; given back when dropped.
#[must_use = "the bytes are given back when this is dropped"]
pub struct Charge {
    pool: Arc<Pool>,
    bytes: usize,
}

impl Charge {
    /// How many bytes this holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes over what `other`, of the same budget, holds.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.pool, &other.pool), "two budgets");
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Holds them for as long as anything is left of `bytes`.
    #[cfg(feature = "nats")]
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        struct Charged {
            bytes: Bytes,
            _charge: Charge,
        }
        impl AsRef<[u8]> for Charged {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        Bytes::from_owner(Charged {
            bytes,
            _charge: self,
        })
    }

    /// Leaves the bytes taken, for [`Budget::release`] to give back: who keeps a million of them
    /// need not keep a million charges.
    pub(crate) fn keep(mut self) -> usize {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.pool.release(self.bytes);
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Charge").field(&self.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn nothing_is_taken_beyond_the_limit_and_all_is_given_back() {
        let budget = Budget::new(100);
        let mut some = budget.reserve(60).expect("free");
        assert!(budget.reserve(41).is_none());
        some.merge(budget.reserve(40).expect("free"));
        assert_eq!((some.bytes(), budget.used()), (100, 100));
        drop(some);
        assert_eq!(budget.used(), 0);
        assert!(budget.reserve(usize::MAX).is_none());
    }

    #[test]
    fn what_is_kept_stays_taken_until_it_is_released() {
        let budget = Budget::new(100);
        let kept = budget.reserve(70).expect("free").keep();
        assert_eq!(budget.used(), 70);
        budget.release(kept);
        assert_eq!(budget.used(), 0);
    }

    #[cfg(feature = "nats")]
    #[test]
    fn bytes_are_held_until_the_last_slice_of_them_is_gone() {
        let budget = Budget::new(100);
        let charge = budget.reserve(100).expect("free");
        let mut held = charge.hold(bytes::Bytes::from_static(b"some"));
        let slice = held.split_to(2);
        drop(held);
        assert_eq!((&slice[..], budget.used()), (&b"so"[..], 100));
        drop(slice);
        assert_eq!(budget.used(), 0);
    }
}
