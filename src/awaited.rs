//! The results that clients still have to fetch.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    select,
    sync::Notify,
    time::{Instant, sleep},
};

use crate::job::JobId;

/// The time from a scheduled poll until its client counts as gone.
const GRACE: Duration = Duration::from_secs(1);

/// The minimum time between two looks at which clients have gone.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The maximum number of results that are counted one by one, which takes about 300 KiB. Any
/// further result is only timed.
const MAX_RESULTS: usize = 7 << 10;

/// The time between two purges of results whose clients have gone, in milliseconds.
const PURGE_INTERVAL_MILLIS: u64 = 1000;

/// The results that clients still have to fetch, so that a drain can wait for these clients.
///
/// A drain awaits a result from the end of its job until a client reads or deletes it. It gives up
/// a second after the latest scheduled poll. That is the latest time that any `Retry-After` has
/// named before the end, since nothing records which client polls which job.
pub(crate) struct AwaitedResults {
    /// The time that all others are counted from.
    start: Instant,
    /// The latest scheduled poll, in milliseconds from `start`.
    ///
    /// `Relaxed`, since it only grows and guards no other data. The lock of `ended` orders a poll
    /// and the end of its job: the later one sees the earlier one.
    latest: AtomicU64,
    /// Held for one step, while no other lock is.
    ended: Mutex<EndedResults>,
    /// Notified when the last result has been read.
    emptied: Notify,
    /// Unset if a store keeps results beyond the process, so that no drain waits for clients.
    is_enabled: bool,
}

/// The results of ended jobs, with the times at which their clients count as gone.
#[derive(Debug)]
struct EndedResults {
    /// A tree, which gives memory back after a peak.
    until: BTreeMap<JobId, u64>,
    /// The latest of these times for results beyond [`MAX_RESULTS`].
    uncounted_until: u64,
    /// The time at which the results of clients that have gone are dropped next.
    next_purge: u64,
}

impl AwaitedResults {
    pub(crate) fn new(is_enabled: bool) -> Self {
        Self {
            start: Instant::now(),
            latest: AtomicU64::new(0),
            ended: Mutex::new(EndedResults {
                until: BTreeMap::new(),
                uncounted_until: 0,
                next_purge: 0,
            }),
            emptied: Notify::new(),
            is_enabled,
        }
    }

    /// Records that a client has got this `Retry-After` for a job that was unfinished when it was
    /// read.
    pub(crate) fn schedule_poll(&self, id: JobId, seconds: u64) {
        if self.is_enabled {
            let at = self.after(Duration::from_secs(seconds));
            self.latest.fetch_max(at, Ordering::Relaxed);
            // The job may have ended meanwhile.
            self.schedule_fetch(id, seconds);
        }
    }

    /// Records that a job ends. Called before the store ends it, so that no client can read the
    /// result earlier.
    ///
    /// Connected clients learn of the end now, and then fetch the result.
    pub(crate) fn ending(&self, id: JobId) {
        if !self.is_enabled {
            return;
        }
        let now = self.after(Duration::ZERO);
        let mut ended = self.ended.lock();
        let latest = self.latest.load(Ordering::Relaxed).max(now);
        let until = latest.saturating_add(millis(GRACE));
        if now >= ended.next_purge {
            ended.until.retain(|_, until| *until > now);
            ended.next_purge = now + PURGE_INTERVAL_MILLIS;
        }
        if ended.until.len() < MAX_RESULTS {
            ended.until.insert(id, until);
        } else {
            ended.uncounted_until = ended.uncounted_until.max(until);
        }
    }

    /// Records that a client is expected to fetch the result of an ended job in `seconds`.
    pub(crate) fn schedule_fetch(&self, id: JobId, seconds: u64) {
        if !self.is_enabled {
            return;
        }
        let at = self.after(Duration::from_secs(seconds) + GRACE);
        let mut ended = self.ended.lock();
        if let Some(until) = ended.until.get_mut(&id) {
            *until = at.max(*until);
        } else if ended.uncounted_until > self.after(Duration::ZERO) {
            // It may be one of those that are only timed.
            ended.uncounted_until = at.max(ended.uncounted_until);
        }
    }

    /// Gives a second more to the clients that had not gone at `since`.
    #[cfg(feature = "webhook")]
    pub(crate) fn extend(&self, since: Instant) {
        let since = millis(since.saturating_duration_since(self.start));
        let at = self.after(GRACE);
        let mut ended = self.ended.lock();
        let awaited = ended.until.values_mut().filter(|until| **until > since);
        awaited.for_each(|until| *until = at.max(*until));
        if ended.uncounted_until > since {
            ended.uncounted_until = at.max(ended.uncounted_until);
        }
    }

    /// Records that a result has been read, or that its job was deleted.
    pub(crate) fn taken(&self, id: JobId) {
        if !self.is_enabled {
            return;
        }
        let is_last = {
            let mut ended = self.ended.lock();
            ended.until.remove(&id).is_some() && ended.until.is_empty()
        };
        if is_last {
            self.emptied.notify_waiters();
        }
    }

    /// Waits until no client is expected to come back for the result of a job that has ended.
    pub(crate) async fn settled(&self) {
        // Enabled before the results are checked: the last read is either seen or wakes this.
        let emptied = self.emptied.notified();
        tokio::pin!(emptied);
        loop {
            emptied.as_mut().enable();
            let now = self.after(Duration::ZERO);
            let Some(next) = self.ended.lock().next_gone(now) else {
                return;
            };
            let pause = Duration::from_millis(next - now).max(LOOK_INTERVAL);
            select! {
                () = sleep(pause) => {}
                () = emptied.as_mut() => emptied.set(self.emptied.notified()),
            }
        }
    }

    /// Returns the time after `delay` from now, in milliseconds from the start.
    fn after(&self, delay: Duration) -> u64 {
        millis(self.start.elapsed().saturating_add(delay))
    }
}

impl EndedResults {
    /// Drops the results of clients that have gone. Returns the time at which the next client
    /// counts as gone.
    fn next_gone(&mut self, now: u64) -> Option<u64> {
        self.until.retain(|_, until| *until > now);
        let uncounted = Some(self.uncounted_until).filter(|until| *until > now);
        self.until.values().copied().chain(uncounted).min()
    }
}

impl fmt::Debug for AwaitedResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwaitedResults")
            .field("results", &self.ended.lock().until.len())
            .finish_non_exhaustive()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the seconds until the results are settled, if `act` happens after 10 s.
    async fn seconds_until_settled(
        awaited: &AwaitedResults,
        act: impl FnOnce(&AwaitedResults),
    ) -> f64 {
        let start = Instant::now();
        let acting = async {
            sleep(Duration::from_secs(10)).await;
            act(awaited);
        };
        let settled = async {
            awaited.settled().await;
            start.elapsed()
        };
        let ((), took) = tokio::join!(acting, settled);
        took.as_secs_f64()
    }

    fn awaiting(seconds: u64) -> (AwaitedResults, [JobId; 2]) {
        let (awaited, ids) = (
            AwaitedResults::new(true),
            [JobId::random(), JobId::random()],
        );
        awaited.schedule_poll(ids[0], seconds);
        awaited.schedule_poll(ids[1], 1);
        ids.iter().for_each(|id| awaited.ending(*id));
        (awaited, ids)
    }

    #[tokio::test(start_paused = true)]
    async fn results_are_awaited_until_the_last_is_taken() {
        let (awaited, ids) = awaiting(60);
        let settled = seconds_until_settled(&awaited, |awaited| {
            ids.iter().for_each(|id| awaited.taken(*id));
        });
        assert_eq!(settled.await.round(), 10.0);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_count_as_gone_after_the_latest_time() {
        let (awaited, [first, _]) = awaiting(60);
        let settled = seconds_until_settled(&awaited, |awaited| awaited.taken(first));
        assert_eq!(settled.await.round(), 61.0);
        // Without a scheduled poll, connected clients have a second.
        let (awaited, _) = awaiting(0);
        assert!(seconds_until_settled(&awaited, |_| {}).await < 3.0);
    }

    #[tokio::test(start_paused = true)]
    async fn poll_scheduled_while_the_job_ends_is_awaited() {
        let (awaited, [first, _]) = awaiting(0);
        awaited.schedule_poll(first, 30);
        let settled = seconds_until_settled(&awaited, |_| {});
        assert_eq!(settled.await.round(), 31.0);
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_is_shown_the_end_gets_time_to_fetch_it() {
        let (awaited, [first, _]) = awaiting(9);
        sleep(Duration::from_millis(9_500)).await;
        awaited.schedule_fetch(first, 5);
        let settled = seconds_until_settled(&awaited, |_| {});
        assert_eq!(settled.await.round(), 6.0);
    }

    #[cfg(feature = "webhook")]
    #[tokio::test(start_paused = true)]
    async fn client_that_has_not_gone_gets_more_time() {
        let (awaited, [first, second]) = awaiting(0);
        let began = Instant::now();
        awaited.taken(first);
        sleep(Duration::from_secs(7)).await;
        awaited.extend(began);
        let settled = seconds_until_settled(&awaited, |_| {});
        assert_eq!(settled.await.round(), 1.0);
        // It has gone by now.
        awaited.extend(Instant::now());
        assert_eq!(awaited.ended.lock().until.len(), 0, "{second}");
    }

    #[tokio::test(start_paused = true)]
    async fn number_of_results_is_limited() {
        let (awaited, [first, second]) = awaiting(60);
        (0..MAX_RESULTS).for_each(|_| awaited.ending(JobId::random()));
        assert_eq!(awaited.ended.lock().until.len(), MAX_RESULTS);
        awaited.taken(first);
        awaited.taken(second);
        sleep(Duration::from_secs(61)).await;
        awaited.ending(first);
        assert_eq!(awaited.ended.lock().until.len(), 1, "others have gone");
    }
}
