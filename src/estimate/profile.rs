//! The history of a kind and the forecast that is computed from it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::{forecast::Forecast, history::History, sample::Sample};

/// The minimum time between two forecasts, unless the number of samples doubles.
const FORECAST_INTERVAL: Duration = Duration::from_secs(1);

/// The highest number of eviction scans that a used kind survives.
const MAX_USES: u8 = 16;

/// The history of a kind and the forecast that is computed from it.
#[derive(Debug, Default)]
pub(super) struct Profile {
    /// Locked for one insertion and one copy of the history.
    learned: Mutex<Learned>,
    /// The forecast, and when its computation began. Locked to copy or replace the pointer.
    forecast: RwLock<Option<(Instant, Arc<Forecast>)>>,
    /// Goes up with each sample and down with each eviction scan: see
    /// [`Kinds`](super::kinds::Kinds). `Relaxed`, since no other memory depends on it; a lost
    /// update only makes an eviction a little earlier or later.
    uses: AtomicU8,
}

#[derive(Debug, Default)]
struct Learned {
    history: History,
    /// The time at which the computation of the last forecast began.
    forecast_at: Option<Instant>,
}

impl Profile {
    pub(super) fn forecast(&self) -> Option<Arc<Forecast>> {
        let forecast = self.forecast.read();
        forecast.as_ref().map(|(_, forecast)| forecast.clone())
    }

    /// Adds a sample to the history unless it is there, and updates the forecast if that is due.
    pub(super) fn learn(&self, sample: Sample, now: u64, poll_cost: f64) {
        let began = Instant::now();
        let history = {
            let mut learned = self.learned.lock();
            let before = learned.history.len();
            if !learned.history.insert(sample, now) {
                return;
            }
            let uses = self.uses.load(Ordering::Relaxed);
            let uses = uses.saturating_add(1).min(MAX_USES);
            self.uses.store(uses, Ordering::Relaxed);
            let has_doubled = learned.history.len().checked_ilog2() > before.checked_ilog2();
            let is_fresh = learned
                .forecast_at
                .is_some_and(|at| began.duration_since(at) < FORECAST_INTERVAL);
            if is_fresh && !has_doubled {
                return;
            }
            learned.forecast_at = Some(began);
            learned.history.clone()
        };
        // Outside the lock: this takes about 100 µs.
        let forecast = Arc::new(Forecast::new(&history, poll_cost));
        let mut last = self.forecast.write();
        // A thread that began later, with more samples, may have finished first.
        if last.as_ref().is_none_or(|(at, _)| *at <= began) {
            *last = Some((began, forecast));
        }
    }

    /// Uses up one use. Returns `false` if there was none left.
    pub(super) fn survives_scan(&self) -> bool {
        let uses = self.uses.load(Ordering::Relaxed);
        self.uses.store(uses.saturating_sub(1), Ordering::Relaxed);
        uses > 0
    }

    #[cfg(test)]
    pub(super) fn samples(&self) -> usize {
        self.learned.lock().history.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::{super::progress::MidpointSample, *};

    #[tokio::test(start_paused = true)]
    async fn forecast_follows_each_second_and_each_doubling() {
        let profile = Profile::default();
        let (now, second) = (SystemTime::now(), Duration::from_secs(1));
        let mut jobs = 0..;
        let mut learn = || {
            let job = jobs.next().expect("endless");
            let sample = Sample::new(job, now, second, second, &MidpointSample::default());
            profile.learn(sample, sample.ended_at, 1.0);
            profile.forecast().expect("a forecast")
        };
        let first = learn();
        let second = learn();
        assert!(!Arc::ptr_eq(&first, &second), "the samples doubled");
        assert!(Arc::ptr_eq(&second, &learn()));
        tokio::time::sleep(FORECAST_INTERVAL).await;
        assert!(!Arc::ptr_eq(&second, &learn()));
    }

    #[test]
    fn job_seen_twice_is_one_sample() {
        let profile = Profile::default();
        let now = SystemTime::now();
        let (queued, ran) = (Duration::ZERO, Duration::from_secs(1));
        for job in [1, 2, 1] {
            let sample = Sample::new(job, now, queued, ran, &MidpointSample::default());
            profile.learn(sample, sample.ended_at, 1.0);
        }
        assert_eq!(profile.samples(), 2);
        assert_eq!(profile.uses.load(Ordering::Relaxed), 2);
    }
}
