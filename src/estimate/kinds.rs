use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::{forecast::Forecast, kind::Kind, past::Seen};

/// What is known of each kind, of at most so many.
///
/// A kind comes in when the first of its jobs has succeeded. Where there is no room, one goes of which few
/// jobs have come lately: so a client that makes up kinds drives out those that others made up, while kinds
/// that are in use stay.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    /// Locked for writing only where a kind comes in, else for one look-up; no other lock is taken meanwhile.
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Found by a hash that is quick with short texts: who would make up names that collide has no more of them in
    /// here than there is room for.
    places: HashMap<Kind, usize, RandomState>,
    kinds: Vec<Known>,
    /// Where in `kinds` to look next for one to let go.
    hand: usize,
}

#[derive(Debug)]
struct Known {
    /// With its history.
    kind: Kind,
    /// Goes up with each job, to a limit, and down each time the hand passes: at 0 the kind may go. A count
    /// on which no memory depends, so `Relaxed`; one that is lost between two threads matters little.
    uses: AtomicU8,
}

/// How many kinds are known at most; each takes some 6 kB.
const MOST: usize = 256;

/// How many times a kind that is in use is passed over at most.
const MOST_USES: u8 = 16;

impl Kinds {
    /// A kind as it is known by now, so that its name is kept once.
    pub(super) fn known(&self, name: &str) -> Option<Kind> {
        let table = self.table.read();
        table
            .places
            .get_key_value(name.as_bytes())
            .map(|(kind, _)| kind.clone())
    }

    pub(super) fn forecast(&self, kind: &Kind) -> Option<Arc<Forecast>> {
        match kind.history() {
            Some(history) => history.forecast(),
            // It may have come to be known since.
            None => self.known(kind.as_str())?.history()?.forecast(),
        }
    }

    /// Takes in jobs of a kind that succeeded, wherever they were seen; `now` is in seconds since the epoch of Unix.
    pub(super) fn push(&self, kind: &Kind, seen: &[Seen], now: u32, poll_cost: f64) {
        let known = self.used(kind);
        let known = known.unwrap_or_else(|| self.table.write().enter(kind));
        if let Some(history) = known.history() {
            history.push(seen, now, poll_cost);
        }
    }

    /// The kind as it is known, which is counted.
    fn used(&self, kind: &Kind) -> Option<Kind> {
        let table = self.table.read();
        let known = &table.kinds[*table.places.get(kind)?];
        let uses = known.uses.load(Ordering::Relaxed);
        known
            .uses
            .store((uses + 1).min(MOST_USES), Ordering::Relaxed);
        Some(known.kind.clone())
    }
}

impl Table {
    /// Lets a kind in, unless somebody else has just done so.
    fn enter(&mut self, kind: &Kind) -> Kind {
        if let Some(&place) = self.places.get(kind) {
            return self.kinds[place].kind.clone();
        }
        let kind = kind.with_history();
        let known = Known {
            kind: kind.clone(),
            uses: AtomicU8::new(0),
        };
        let place = match self.kinds.len() {
            count if count < MOST => {
                self.kinds.push(known);
                count
            }
            _ => {
                let place = self.least_used();
                let old = std::mem::replace(&mut self.kinds[place], known);
                self.places.remove(&old.kind);
                place
            }
        };
        self.places.insert(kind.clone(), place);
        kind
    }

    /// The next place round the table whose kind has not been used since it was passed over often enough.
    fn least_used(&mut self) -> usize {
        loop {
            let place = self.hand;
            self.hand = (place + 1) % self.kinds.len();
            match self.kinds[place].uses.get_mut() {
                0 => return place,
                uses => *uses -= 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{super::pace::Halfway, *};

    fn push(kinds: &Kinds, name: &str) {
        let seen = Seen::new(
            SystemTime::now(),
            Duration::ZERO,
            Duration::from_secs(1),
            &Halfway::default(),
        );
        kinds.push(&Kind::new(name), &[seen], seen.at(), 1.0);
    }

    #[test]
    fn kinds_that_are_made_up_drive_out_none_that_is_in_use() {
        let kinds = Kinds::default();
        for n in 0..100_000 {
            push(&kinds, &format!("POST /{n}"));
            if n % 100 == 0 {
                push(&kinds, "POST /reports");
            }
        }
        let table = kinds.table.read();
        assert_eq!((table.kinds.len(), table.places.len()), (MOST, MOST));
        let reports = &table.kinds[table.places[&b"POST /reports"[..]]];
        let history = reports.kind.history().expect("known");
        assert_eq!(history.count(), 128);
    }

    #[test]
    fn a_kind_out_of_use_makes_room() {
        let kinds = Kinds::default();
        for _ in 0..1_000 {
            push(&kinds, "POST /old");
        }
        for n in 0..MOST * (usize::from(MOST_USES) + 2) {
            push(&kinds, &format!("POST /{n}"));
        }
        assert!(kinds.known("POST /old").is_none());
    }

    #[test]
    fn a_known_name_is_kept_once() {
        let kinds = Kinds::default();
        assert!(kinds.known("POST /reports").is_none());
        push(&kinds, "POST /reports");
        let names = [(); 2].map(|()| kinds.known("POST /reports").expect("known"));
        assert_eq!(names[0].as_str().as_ptr(), names[1].as_str().as_ptr());
    }
}
