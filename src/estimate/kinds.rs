//! The kinds that have a profile.

use std::{borrow::Borrow, collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::{forecast::Forecast, kind::Kind, sample::Sample};

/// The kinds that have a profile, at most [`MAX_KINDS`].
///
/// A kind is added when its first job succeeds. If the table is full, it replaces a kind that few
/// jobs have used lately. So a client that makes up kinds evicts other made-up kinds, not those in
/// use.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    /// Locked for one look-up; for writing only if a kind is added. No other lock is taken
    /// meanwhile.
    table: RwLock<Table>,
}

/// The maximum number of kinds. Each takes at most 8 kB.
const MAX_KINDS: usize = 256;

#[derive(Debug, Default)]
struct Table {
    /// Indices into `kinds`. A fast hash without protection against collisions is enough: an
    /// attacker's names cannot outnumber `MAX_KINDS`.
    indices: HashMap<KindName, usize, RandomState>,
    /// Each of them has a profile.
    kinds: Vec<Kind>,
    /// The index at which the next eviction scan begins.
    hand: usize,
}

/// Finds a kind by the bytes of its name, which need no UTF-8 validation.
#[derive(Debug, PartialEq, Eq, Hash)]
struct KindName(Kind);

impl Borrow<[u8]> for KindName {
    fn borrow(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Kinds {
    /// Returns the kind of this name with its profile, if it has one.
    pub(super) fn get(&self, name: &[u8]) -> Option<Kind> {
        let table = self.table.read();
        let (name, _) = table.indices.get_key_value(name)?;
        Some(name.0.clone())
    }

    pub(super) fn forecast(&self, kind: &Kind) -> Option<Arc<Forecast>> {
        match kind.profile() {
            Some(profile) => profile.forecast(),
            // The kind may have got a profile since this handle was made.
            None => self.get(kind.as_bytes())?.profile()?.forecast(),
        }
    }

    /// Adds a sample to the kind's profile. `now` is in milliseconds since the Unix epoch.
    pub(super) fn learn(&self, kind: &Kind, sample: Sample, now: u64, poll_cost: f64) {
        // A handle from before the eviction of its kind still works. Its sample is lost, and the
        // next request of that kind adds the kind again.
        if let Some(profile) = kind.profile() {
            return profile.learn(sample, now, poll_cost);
        }
        let known = self.get(kind.as_bytes());
        let known = known.unwrap_or_else(|| self.table.write().get_or_insert(kind));
        if let Some(profile) = known.profile() {
            profile.learn(sample, now, poll_cost);
        }
    }
}

impl Table {
    /// Adds a kind, unless another thread has just done so.
    fn get_or_insert(&mut self, kind: &Kind) -> Kind {
        if let Some(&index) = self.indices.get(kind.as_bytes()) {
            return self.kinds[index].clone();
        }
        let kind = kind.with_profile();
        let index = if self.kinds.len() < MAX_KINDS {
            self.kinds.push(kind.clone());
            self.kinds.len() - 1
        } else {
            let index = self.eviction_candidate();
            let evicted = std::mem::replace(&mut self.kinds[index], kind.clone());
            self.indices.remove(evicted.as_bytes());
            index
        };
        self.indices.insert(KindName(kind.clone()), index);
        kind
    }

    /// Scans round the table for a kind without uses (second chance algorithm).
    fn eviction_candidate(&mut self) -> usize {
        loop {
            let index = self.hand;
            self.hand = (index + 1) % self.kinds.len();
            let profile = self.kinds[index].profile();
            if !profile.is_some_and(|profile| profile.survives_scan()) {
                return index;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{super::progress::MidpointSample, *};

    fn learn(kinds: &Kinds, name: &str, job: u32) {
        let sample = Sample::new(
            job,
            SystemTime::now(),
            Duration::ZERO,
            Duration::from_secs(1),
            &MidpointSample::default(),
        );
        kinds.learn(&Kind::new(name), sample, sample.ended_at, 1.0);
    }

    #[test]
    fn made_up_kinds_do_not_evict_kinds_in_use() {
        let kinds = Kinds::default();
        for n in 0..100_000 {
            learn(&kinds, &format!("POST /{n}"), n);
            if n % 100 == 0 {
                learn(&kinds, "POST /reports", n);
            }
        }
        let table = kinds.table.read();
        let counts = (table.kinds.len(), table.indices.len());
        assert_eq!(counts, (MAX_KINDS, MAX_KINDS));
        let reports = &table.kinds[table.indices[&b"POST /reports"[..]]];
        assert_eq!(reports.profile().expect("known").samples(), 128);
    }

    #[test]
    fn unused_kind_is_evicted() {
        let kinds = Kinds::default();
        for job in 0..1_000 {
            learn(&kinds, "POST /old", job);
        }
        for n in 0..MAX_KINDS as u32 * 18 {
            learn(&kinds, &format!("POST /{n}"), n);
        }
        assert!(kinds.get(b"POST /old").is_none());
    }

    #[test]
    fn known_name_is_stored_once() {
        let kinds = Kinds::default();
        assert!(kinds.get(b"POST /reports").is_none());
        learn(&kinds, "POST /reports", 1);
        let names = [(); 2].map(|()| kinds.get(b"POST /reports").expect("known"));
        assert_eq!(names[0].as_str().as_ptr(), names[1].as_str().as_ptr());
    }
}
