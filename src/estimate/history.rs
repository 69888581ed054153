use std::{sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::{
    forecast::Forecast,
    past::{Past, Seen},
};

/// How long after a forecast the next one is made at the earliest, unless twice as much is known by then.
const REST: Duration = Duration::from_secs(1);

/// The past of a kind, and what was made of it.
#[derive(Debug, Default)]
pub(super) struct History {
    /// With when its last forecast was begun. Held for the insertion of a few, or one copy.
    past: Mutex<(Past, Option<Instant>)>,
    /// With when it was begun. Held for one copy or exchange of the pointer.
    forecast: RwLock<Option<(Instant, Arc<Forecast>)>>,
}

impl History {
    pub(super) fn forecast(&self) -> Option<Arc<Forecast>> {
        let forecast = self.forecast.read();
        forecast.as_ref().map(|(_, forecast)| forecast.clone())
    }

    /// Takes in jobs, wherever they were seen, at a time by the clock on the wall.
    pub(super) fn push(&self, seen: &[Seen], at: u32, poll_cost: f64) {
        let now = Instant::now();
        let past = {
            let mut guard = self.past.lock();
            let (past, made) = &mut *guard;
            let before = past.len();
            seen.iter().for_each(|&seen| past.insert(seen, at));
            // While little is known, each job tells much.
            let has_doubled = past.len().checked_ilog2() > before.checked_ilog2();
            if !has_doubled && made.is_some_and(|made| now.duration_since(made) < REST) {
                return;
            }
            *made = Some(now);
            past.clone()
        };
        // Outside the lock: it takes some 100 µs. For a second nobody else makes one.
        let forecast = Arc::new(Forecast::of(&past, poll_cost));
        let mut last = self.forecast.write();
        // One that knows more may have been begun since, and be here first.
        if last.as_ref().is_none_or(|(begun, _)| *begun <= now) {
            *last = Some((now, forecast));
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.past.lock().0.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::{super::pace::Halfway, *};

    #[tokio::test(start_paused = true)]
    async fn a_forecast_is_made_at_most_once_a_second_and_when_twice_as_much_is_known() {
        let history = History::default();
        let seen = Seen::new(SystemTime::now(), REST, REST, &Halfway::default());
        let push = || history.push(&[seen], seen.at(), 1.0);
        let forecast = || history.forecast().expect("a forecast");
        push();
        let first = forecast();
        push();
        let second = forecast();
        assert!(!Arc::ptr_eq(&first, &second), "twice as much is known");
        push();
        assert!(Arc::ptr_eq(&second, &forecast()));
        tokio::time::sleep(REST).await;
        push();
        assert!(!Arc::ptr_eq(&second, &forecast()));
    }
}
