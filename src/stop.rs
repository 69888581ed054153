use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use slab::Slab;
use tokio::{
    task::AbortHandle,
    time::{Instant, Sleep, sleep_until},
};

use crate::job::ErrorCode;

/// Tells calls that they are to end: each when its time is up, and all when the process shuts down.
///
/// One list and one timer for all of a registry's: with a timer and a waiter of its own, a job that waits
/// would take some 250 bytes more. The timer is on the runtime of the call that needed it first; where that goes
/// away the others look for another one, and while it is blocked their limits are told late.
#[derive(Clone, Default)]
pub(crate) struct Interrupts {
    shared: Arc<Shared>,
}

/// A call's place among those, which is free again when this is dropped.
pub(crate) struct Interrupt {
    shared: Arc<Shared>,
    place: usize,
}

#[derive(Default)]
struct Shared {
    /// Held for a look at one place, and by the timer and a shutdown for one at each; not while anything is woken,
    /// spawned, aborted or let go of, as what goes with that may want it; never across an await.
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    taken: Slab<Place>,
    is_shut_down: bool,
    /// The timer there is, if anybody's time is limited.
    timer: Option<Timer>,
    /// How many timers there have been.
    timers: u64,
}

struct Place {
    waker: Option<Waker>,
    limit: Limit,
}

enum Limit {
    None,
    At(Instant),
    Reached,
}

struct Timer {
    number: u64,
    /// The first limit when it was set: one that is earlier needs another timer.
    at: Instant,
    task: Option<AbortHandle>,
}

/// After a look at so many places the timer rests for a millisecond: so however many there are, and however close
/// their limits, looking takes well below a hundredth of a processor. Limits are told that much late.
const PLACES_A_MILLISECOND: usize = 1024;

impl Interrupts {
    /// A place for a call, which is to end at `limit`, if there is one.
    pub(crate) fn enter(&self, limit: Option<Instant>) -> Interrupt {
        let place = Place {
            waker: None,
            limit: limit.map_or(Limit::None, Limit::At),
        };
        Interrupt {
            place: self.shared.places.lock().taken.insert(place),
            shared: self.shared.clone(),
        }
    }

    /// Tells all, and whoever comes later.
    pub(crate) fn shut_down(&self) {
        let wakers = {
            let mut places = self.shared.places.lock();
            places.is_shut_down = true;
            places.wakers(|_| true)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.shared.places.lock().is_shut_down
    }

    /// Completes when all are told.
    pub(crate) async fn shutdown(&self) {
        let place = self.enter(None);
        poll_fn(|cx| place.poll(cx)).await;
    }
}

impl Interrupt {
    /// Ready when the call is to end: with [`ErrorCode::Shutdown`] or [`ErrorCode::Timeout`]. Of those who asked
    /// the last is woken.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<ErrorCode> {
        let (_old, missing) = {
            let mut places = self.shared.places.lock();
            if places.is_shut_down {
                return Poll::Ready(ErrorCode::Shutdown);
            }
            let place = &mut places.taken[self.place];
            let limit = match place.limit {
                Limit::Reached => return Poll::Ready(ErrorCode::Timeout),
                Limit::At(at) => Some(at),
                Limit::None => None,
            };
            let is_known = |waker: &Waker| waker.will_wake(cx.waker());
            let old = match place.waker.as_ref().is_some_and(is_known) {
                true => None,
                false => place.waker.replace(cx.waker().clone()),
            };
            (old, limit.and_then(|at| places.missing_timer(at)))
        };
        if let Some(missing) = missing {
            self.shared.start(missing);
        }
        Poll::Pending
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        let _place = {
            let mut places = self.shared.places.lock();
            let place = places.taken.remove(self.place);
            if places.taken.is_empty() && places.taken.capacity() > PLACES_A_MILLISECOND {
                places.taken.shrink_to_fit();
            }
            place
        };
    }
}

/// A timer that is to be started, and the one that it replaces.
struct Missing {
    number: u64,
    at: Instant,
    replaced: Option<Timer>,
}

impl Places {
    /// Takes the wakers of some.
    fn wakers(&mut self, which: impl Fn(&Place) -> bool) -> Vec<Waker> {
        let woken = self.taken.iter_mut().filter(|(_, place)| which(place));
        woken.filter_map(|(_, place)| place.waker.take()).collect()
    }

    /// What is to be done where there is no timer for a limit as early as this.
    fn missing_timer(&mut self, at: Instant) -> Option<Missing> {
        if self.timer.as_ref().is_some_and(|timer| timer.at <= at) {
            return None;
        }
        self.timers += 1;
        let (number, task) = (self.timers, None);
        Some(Missing {
            number,
            at,
            replaced: self.timer.replace(Timer { number, at, task }),
        })
    }

    fn timer(&mut self, number: u64) -> Option<&mut Timer> {
        self.timer.as_mut().filter(|timer| timer.number == number)
    }
}

impl Timer {
    fn stop(self) {
        if let Some(task) = self.task {
            task.abort();
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.stop();
        }
    }
}

impl Shared {
    /// Starts a timer on the runtime that polls; where that is going away, its task is dropped right here.
    fn start(self: &Arc<Self>, missing: Missing) {
        if let Some(replaced) = missing.replaced {
            replaced.stop();
        }
        let number = missing.number;
        let keeper = Timekeeper {
            shared: Arc::downgrade(self),
            number,
        };
        let task = tokio::spawn(keeper.keep_time(sleep_until(missing.at))).abort_handle();
        if let Some(timer) = self.places.lock().timer(number) {
            timer.task = Some(task);
            return;
        }
        // It has been replaced meanwhile, or is over.
        task.abort();
    }

    /// Tells those whose time is up. Returns when to look again; `None` where the timer is not needed any more.
    fn look(&self, number: u64) -> Option<Instant> {
        let now = Instant::now();
        let mut wakers = Vec::new();
        let next = {
            let mut places = self.places.lock();
            places.timer(number)?;
            let mut first = None;
            for (_, place) in &mut places.taken {
                match place.limit {
                    Limit::At(at) if at <= now => {
                        place.limit = Limit::Reached;
                        wakers.extend(place.waker.take());
                    }
                    Limit::At(at) => first = Some(first.map_or(at, |first| at.min(first))),
                    Limit::None | Limit::Reached => {}
                }
            }
            // Places that are free were looked at as well.
            let rest = (places.taken.capacity() / PLACES_A_MILLISECOND) as u64;
            match (first, places.timer(number)) {
                (Some(first), Some(timer)) => timer.at = first,
                _ => places.timer = None,
            }
            first.map(|first| first.max(now + Duration::from_millis(rest)))
        };
        wakers.into_iter().for_each(Waker::wake);
        next
    }
}

/// Keeps the time for all; the task that does so ends when nobody's time is limited any more, when another
/// one's timer goes off earlier, or with the list.
struct Timekeeper {
    shared: Weak<Shared>,
    number: u64,
}

impl Timekeeper {
    async fn keep_time(self, sleep: Sleep) {
        let mut sleep = pin!(sleep);
        loop {
            sleep.as_mut().await;
            let shared = self.shared.upgrade();
            match shared.and_then(|shared| shared.look(self.number)) {
                Some(next) => sleep.as_mut().reset(next),
                None => return,
            }
        }
    }
}

impl Drop for Timekeeper {
    /// Where its runtime goes away before, those that others run look for another.
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let wakers = {
            let mut places = shared.places.lock();
            if places.timer(self.number).is_none() {
                return;
            }
            places.timer = None;
            places.wakers(|place| matches!(place.limit, Limit::At(_)))
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use tokio::{runtime::Runtime, task::yield_now, time::sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn told(interrupt: &Interrupt) -> ErrorCode {
        poll_fn(|cx| interrupt.poll(cx)).await
    }

    /// Sees after how long a call is told that its time is up.
    fn wait(interrupts: &Interrupts, limit: Duration) -> tokio::task::JoinHandle<Duration> {
        let start = Instant::now();
        let interrupt = interrupts.enter(Some(start + limit));
        tokio::spawn(async move {
            assert_eq!(told(&interrupt).await, ErrorCode::Timeout);
            start.elapsed()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_told_when_its_time_is_up() {
        let interrupts = Interrupts::default();
        // The second is earlier than what there is a timer for.
        let waits = [5, 2, 9, 2].map(|seconds| wait(&interrupts, seconds * SECOND));
        let mut took = Vec::new();
        for wait in waits {
            took.push(wait.await.expect("no panic").as_secs_f64().round());
        }
        assert_eq!(took, [5.0, 2.0, 9.0, 2.0]);
        let places = interrupts.shared.places.lock();
        assert!(places.taken.is_empty() && places.timer.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_left_is_not_waited_for() {
        let interrupts = Interrupts::default();
        let left = wait(&interrupts, SECOND);
        let stays = wait(&interrupts, 3 * SECOND);
        yield_now().await;
        left.abort();
        assert!(left.await.is_err());
        assert_eq!(stays.await.expect("no panic").as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_is_told_to_all_and_to_who_comes_later() {
        let interrupts = Interrupts::default();
        let limits = [None, Some(Instant::now() + SECOND)];
        let calls = limits.map(|limit| {
            let interrupt = interrupts.enter(limit);
            tokio::spawn(async move { told(&interrupt).await })
        });
        yield_now().await;
        interrupts.shut_down();
        for call in calls {
            assert_eq!(call.await.expect("no panic"), ErrorCode::Shutdown);
        }
        let late = interrupts.enter(None);
        assert_eq!(told(&late).await, ErrorCode::Shutdown);
    }

    #[test]
    fn a_limit_holds_though_the_runtime_that_kept_the_time_is_gone() {
        let [first, second] = [(); 2].map(|()| runtime());
        let interrupts = Interrupts::default();
        first.block_on(async {
            let _waits = wait(&interrupts, SECOND);
            yield_now().await;
        });
        let waits = second.spawn({
            let interrupts = interrupts.clone();
            async move { wait(&interrupts, 2 * SECOND).await.expect("no panic") }
        });
        second.block_on(async {
            // It has asked, and found a timer that goes off before its limit.
            for _ in 0..5 {
                yield_now().await;
            }
            drop(tokio::task::spawn_blocking(move || drop(first)).await);
            sleep(Duration::ZERO).await;
            assert_eq!(waits.await.expect("no panic").as_secs(), 2);
        });
    }

    fn runtime() -> Runtime {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.expect("a runtime")
    }

    #[tokio::test(start_paused = true)]
    async fn the_timer_goes_with_the_list() {
        let interrupts = Interrupts::default();
        let waits = wait(&interrupts, 3600 * SECOND);
        yield_now().await;
        let metrics = tokio::runtime::Handle::current().metrics();
        assert_eq!(metrics.num_alive_tasks(), 2);
        waits.abort();
        drop(interrupts);
        assert!(waits.await.is_err());
        yield_now().await;
        assert_eq!(metrics.num_alive_tasks(), 0);
    }
}
