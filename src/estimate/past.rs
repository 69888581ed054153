//! What is remembered of a kind's jobs.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::pace::Halfway;

/// The last jobs of a kind that succeeded, in the order in which they ended, 128 of them.
///
/// It can be merged: what two have seen, put in order by time, is what one would have seen in their place. None is
/// rounded, and the order tells whether they have changed of late; so many take two kilobytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Past(VecDeque<Seen>);

/// What was seen of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u32; 4]", into = "[u32; 4]")]
pub(super) struct Seen {
    /// When it ended, in seconds since the epoch of Unix, by the clock of who saw it.
    at: u32,
    /// In milliseconds.
    queued: u32,
    /// In milliseconds. Never 0: what takes no time would leave no time in which it is to be expected.
    ran: u32,
    /// How it went on from the half, in thousandths (see [`Pace`](super::pace::Pace)); 0 where it told no
    /// progress.
    multiple: u32,
}

/// How many jobs are remembered. Fewer miss what is rare, more are slow to forget.
const LENGTH: usize = 128;

impl Past {
    /// Takes in a job, wherever it was seen; `now` is in seconds since the epoch of Unix.
    pub(super) fn insert(&mut self, mut seen: Seen, now: u32) {
        // Nothing was seen later than now: a clock that was ahead, of this process or another, would keep its
        // jobs the latest until then.
        seen.at = seen.at.min(now);
        let ahead = self.0.iter_mut().rev().take_while(|seen| seen.at > now);
        ahead.for_each(|seen| seen.at = now);
        let is_full = self.0.len() == LENGTH;
        if self.0.back().is_none_or(|last| last.at <= seen.at) {
            if is_full {
                self.0.pop_front();
            }
            return self.0.push_back(seen);
        }
        let place = self.0.partition_point(|other| other.at <= seen.at);
        match (is_full, place) {
            (false, place) => self.0.insert(place, seen),
            // Older than all that is remembered.
            (true, 0) => {}
            (true, place) => {
                self.0.pop_front();
                self.0.insert(place - 1, seen);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How long they waited, in seconds.
    pub(super) fn queued(&self) -> Vec<f64> {
        self.0.iter().map(|seen| thousandths(seen.queued)).collect()
    }

    /// How long they ran, in seconds.
    pub(super) fn ran(&self) -> Vec<f64> {
        self.0.iter().map(|seen| thousandths(seen.ran)).collect()
    }

    /// How those that told their progress went on from the half.
    pub(super) fn multiples(&self) -> Vec<f64> {
        let told = self.0.iter().filter(|seen| seen.multiple > 0);
        told.map(|seen| thousandths(seen.multiple)).collect()
    }
}

impl Seen {
    /// A job whose request was taken at `created_at`.
    pub(super) fn new(
        created_at: SystemTime,
        queued: Duration,
        ran: Duration,
        halfway: &Halfway,
    ) -> Self {
        let multiple = halfway.multiple(ran.as_secs_f64());
        Self {
            at: seconds(created_at.checked_add(queued + ran).unwrap_or(created_at)),
            queued: millis(queued),
            ran: millis(ran).max(1),
            multiple: multiple.map_or(0, |multiple| ((multiple * 1e3) as u32).max(1)),
        }
    }

    /// When it ended, in seconds since the epoch of Unix.
    pub(super) fn at(&self) -> u32 {
        self.at
    }
}

impl From<[u32; 4]> for Seen {
    fn from([at, queued, ran, multiple]: [u32; 4]) -> Self {
        Self {
            at,
            queued,
            ran: ran.max(1),
            multiple,
        }
    }
}

impl From<Seen> for [u32; 4] {
    fn from(seen: Seen) -> Self {
        [seen.at, seen.queued, seen.ran, seen.multiple]
    }
}

/// In seconds since the epoch of Unix.
pub(super) fn seconds(at: SystemTime) -> u32 {
    let since = at.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
    })
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn thousandths(count: u32) -> f64 {
    f64::from(count) / 1e3
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn seen(at: u32, ran: u32) -> Seen {
        [at, 0, ran, 0].into()
    }

    fn ran(past: &Past) -> Vec<u32> {
        past.0.iter().map(|seen| seen.ran).collect()
    }

    #[test]
    fn a_clock_that_was_ahead_keeps_nothing_the_latest() {
        let mut past = Past::default();
        past.insert(seen(9_999, 1), 10);
        past.insert(seen(11, 2), 11);
        assert_eq!(ran(&past), [1, 2]);
        // Of this process itself, which was set back.
        past.insert(seen(7, 3), 7);
        assert_eq!(ran(&past), [1, 2, 3]);
    }

    #[test]
    fn what_is_older_than_all_that_is_remembered_is_not() {
        let mut past = Past::default();
        (0..130).for_each(|at| past.insert(seen(100 + at, at + 1), 1_000));
        past.insert(seen(5, 777), 1_000);
        assert_eq!(ran(&past), (3..=130).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn whoever_saw_them_the_last_are_remembered_in_their_order(
            all in vec((0_u32..300, any::<bool>()), 0..400),
        ) {
            // Each ran for its number, so that they can be told apart.
            let all = all.into_iter().zip(1..);
            let mut all: Vec<_> = all.map(|((at, here), ran)| (seen(at, ran), here)).collect();
            let mut past = Past::default();
            for &(seen, _) in all.iter().filter(|(_, here)| *here) {
                past.insert(seen, 300);
            }
            for &(seen, _) in all.iter().filter(|(_, here)| !here) {
                past.insert(seen, 300);
            }
            all.sort_by_key(|(seen, here)| (seen.at, !here));
            let last = &all[all.len().saturating_sub(LENGTH)..];
            let ends: Vec<u32> = past.0.iter().map(|seen| seen.at).collect();
            prop_assert_eq!(ends, last.iter().map(|(seen, _)| seen.at).collect::<Vec<_>>());
            // Those of one second at the far end may be others of that second.
            let is_the_same = |(seen, (last, _)): (&Seen, &(Seen, bool))| {
                seen.ran == last.ran || last.at == past.0[0].at
            };
            prop_assert!(past.0.iter().zip(last).all(is_the_same));
        }
    }
}
