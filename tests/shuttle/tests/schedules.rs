//! Runs each model under many schedules, and shows that it finds planted faults.
//!
//! `SHUTTLE_SCHEDULES` sets the number of schedules for each model.

use std::{env, panic, sync::Arc};

use shuttle::{
    Config, Runner,
    future::block_on,
    scheduler::RandomScheduler,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
use shuttle_models as models;

/// The default number of schedules for each model.
const SCHEDULES: usize = 1_000;

const SEED: u64 = 0x2026_1128;

fn run(model: impl Fn() + Send + Sync + 'static) {
    let schedules = env::var("SHUTTLE_SCHEDULES");
    let schedules = schedules.map_or(SCHEDULES, |number| number.parse().expect("a number"));
    let mut config = Config::default();
    config.silence_warnings = true;
    let scheduler = RandomScheduler::new_from_seed(SEED, schedules);
    Runner::new(scheduler, config).run(model);
}

/// Asserts that a schedule ends in a panic or a deadlock.
fn find_fault(model: impl Fn() + Send + Sync + 'static) {
    let found = panic::catch_unwind(panic::AssertUnwindSafe(|| run(model)));
    assert!(found.is_err(), "no schedule shows the fault");
}

/// A drain that meets the last release and a late request.
macro_rules! drain {
    ($permits:ident) => {
        || {
            let permits = models::$permits::Permits::new(2, None);
            let permit = permits.acquire(None).expect("a free permit");
            let release = thread::spawn(move || drop(permit));
            let late = permits.clone();
            let late = thread::spawn(move || drop(late.acquire(None)));
            permits.close();
            block_on(permits.emptied());
            assert_eq!(permits.count(), 0);
            assert!(permits.acquire(None).is_err());
            release.join().expect("no panic");
            late.join().expect("no panic");
            assert_eq!(permits.count(), 0);
        }
    };
}

/// Three threads that acquire two permits at most, in all or of one owner.
macro_rules! limit {
    ($permits:ident, $limit:expr, $owner_limit:expr) => {
        || {
            let permits = models::$permits::Permits::new($limit, $owner_limit);
            let held = Arc::new(AtomicUsize::new(0));
            let threads = [(); 3].map(|()| {
                let (permits, held) = (permits.clone(), held.clone());
                thread::spawn(move || {
                    for _ in 0..2 {
                        if let Ok(permit) = permits.acquire(Some(models::job::Owner(1))) {
                            assert!(held.fetch_add(1, Ordering::SeqCst) < 2);
                            held.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    }
                })
            });
            for thread in threads {
                thread.join().expect("no panic");
            }
            assert_eq!(permits.count(), 0);
        }
    };
}

/// A stop that meets a call with a deadline, and one without.
macro_rules! stop {
    ($stop:ident) => {
        || {
            use models::{
                tokio::time::Instant,
                $stop::{StopReason, StopSignal},
            };

            let signal = StopSignal::default();
            let calls = [None, Some(Instant)].map(|deadline| {
                let signal = signal.clone();
                thread::spawn(move || {
                    assert_eq!(block_on(signal.watch(deadline)), StopReason::Shutdown);
                    assert!(signal.is_stopped());
                })
            });
            signal.stop();
            block_on(signal.stopped());
            for call in calls {
                call.join().expect("no panic");
            }
        }
    };
}

/// A response that two readers read while it is written.
macro_rules! live {
    ($live:ident, $is_complete:expr) => {
        || {
            let (status, headers) = (http::StatusCode::OK, http::HeaderMap::new());
            let charge = models::limit::Charge;
            let live = models::$live::LiveResponse::new(status, headers, None, charge);
            let live = Arc::new(live);
            let readers = [0, 1].map(|from| {
                let live = live.clone();
                thread::spawn(move || {
                    let mut bytes = Vec::new();
                    let is_complete = loop {
                        match live.part((from + bytes.len()) as u64) {
                            models::$live::LivePart::Data(data) => bytes.extend_from_slice(&data),
                            models::$live::LivePart::Wait(change) => block_on(change),
                            models::$live::LivePart::End(_) => break true,
                            models::$live::LivePart::Broken => break false,
                        }
                    };
                    assert_eq!(bytes, b"abcd"[from..]);
                    assert_eq!(is_complete, $is_complete);
                })
            });
            for chunk in ["ab", "cd"] {
                live.push(chunk.into());
                live.notify();
            }
            if $is_complete {
                live.complete(None);
            } else {
                live.close();
                live.notify();
            }
            for reader in readers {
                reader.join().expect("no panic");
            }
        }
    };
}

#[test]
fn drain_sees_the_last_release() {
    run(drain!(permits));
    find_fault(drain!(permits_wait_created_after_the_read));
    find_fault(drain!(permits_release_unnoticed));
}

#[test]
fn permits_stay_within_their_limit() {
    run(limit!(permits, 2, None));
    find_fault(limit!(permits_not_acquired_in_one_step, 2, None));
}

#[test]
fn owner_stays_within_its_limit() {
    run(limit!(permits, 9, Some(2)));
    find_fault(limit!(permits_owner_forgotten, 9, Some(2)));
}

#[test]
fn stop_reaches_every_call() {
    run(stop!(stop));
    find_fault(stop!(stop_only_polled_without_deadline));
}

#[test]
fn readers_see_every_byte_and_the_end() {
    run(live!(live, true));
    run(live!(live, false));
    find_fault(live!(live_change_created_after_the_lock, true));
    find_fault(live!(live_end_set_after_the_notification, true));
}
