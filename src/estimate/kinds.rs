use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::{forecast::Forecast, kind::Kind, pace::Halfway, past::Past};

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
    places: HashMap<Kind, usize>,
    kinds: Vec<Known>,
    /// Where in `kinds` to look next for one to let go.
    hand: usize,
}

#[derive(Debug)]
struct Known {
    kind: Kind,
    history: Arc<History>,
    /// Goes up with each job, to a limit, and down each time the hand passes: at 0 the kind may go. A count
    /// on which no memory depends, so `Relaxed`; one that is lost between two threads matters little.
    uses: AtomicU8,
}

/// How many kinds are known at most; each takes some 6 kB.
const MOST: usize = 256;

/// How many times a kind that is in use is passed over at most.
const MOST_USES: u8 = 16;

/// How long after a forecast the next one is made at the earliest.
const REST: Duration = Duration::from_secs(1);

/// The past of a kind, and what was made of it.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Held for one push or one copy.
    past: Mutex<(Past, Option<Instant>)>,
    /// Held for one copy or exchange of the pointer.
    forecast: RwLock<Option<Arc<Forecast>>>,
}

impl Kinds {
    /// A kind as it is known by now, so that its name is kept once.
    pub(super) fn known(&self, name: &str) -> Option<Kind> {
        let table = self.table.read();
        table
            .places
            .get_key_value(name)
            .map(|(kind, _)| kind.clone())
    }

    pub(super) fn forecast(&self, kind: &Kind) -> Option<Arc<Forecast>> {
        let table = self.table.read();
        let known = &table.kinds[*table.places.get(kind)?];
        known.history.forecast.read().clone()
    }

    /// Takes note of a job that has succeeded.
    pub(super) fn push(
        &self,
        kind: &Kind,
        queued: Duration,
        ran: Duration,
        halfway: &Halfway,
        poll_cost: f64,
    ) {
        let history = self.of(kind);
        let history = history.unwrap_or_else(|| self.table.write().enter(kind));
        history.push(queued, ran, halfway, poll_cost);
    }

    fn of(&self, kind: &Kind) -> Option<Arc<History>> {
        let table = self.table.read();
        let known = &table.kinds[*table.places.get(kind)?];
        let uses = known.uses.load(Ordering::Relaxed);
        known
            .uses
            .store((uses + 1).min(MOST_USES), Ordering::Relaxed);
        Some(known.history.clone())
    }
}

impl Table {
    /// Lets a kind in, unless somebody else has just done so.
    fn enter(&mut self, kind: &Kind) -> Arc<History> {
        if let Some(&place) = self.places.get(kind) {
            return self.kinds[place].history.clone();
        }
        let known = Known {
            kind: kind.clone(),
            history: Arc::default(),
            uses: AtomicU8::new(0),
        };
        let history = known.history.clone();
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
        history
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

impl History {
    fn push(&self, queued: Duration, ran: Duration, halfway: &Halfway, poll_cost: f64) {
        let now = Instant::now();
        let past = {
            let mut guard = self.past.lock();
            let (past, made) = &mut *guard;
            past.push(queued, ran, halfway);
            if made.is_some_and(|made| now.duration_since(made) < REST) {
                return;
            }
            *made = Some(now);
            past.clone()
        };
        // Outside the lock: it takes some 50 µs. For a second nobody else makes one.
        let forecast = Forecast::of(&past, poll_cost);
        *self.forecast.write() = Some(Arc::new(forecast));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn push(kinds: &Kinds, name: &str) {
        kinds.push(
            &Kind::new(name),
            Duration::ZERO,
            SECOND,
            &Halfway::default(),
            1.0,
        );
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
        let reports = &table.kinds[table.places["POST /reports"]];
        assert_eq!(reports.history.past.lock().0.ran.recent().len(), 128);
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

    #[tokio::test(start_paused = true)]
    async fn a_forecast_is_made_at_most_once_a_second() {
        let kinds = Kinds::default();
        let forecast = || kinds.forecast(&Kind::new("POST /")).expect("a forecast");
        push(&kinds, "POST /");
        let first = forecast();
        push(&kinds, "POST /");
        assert!(Arc::ptr_eq(&first, &forecast()));
        tokio::time::sleep(REST).await;
        push(&kinds, "POST /");
        assert!(!Arc::ptr_eq(&first, &forecast()));
    }
}
