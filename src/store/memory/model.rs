//! Any sequence of what can be done to a store, beside a model of what must come of it.

use std::{collections::HashMap, time::SystemTime};

use proptest::{collection::vec, prelude::*};
use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    estimate::Kind,
    job::{Progress, Status},
    store::{Collected, News, Outcome},
};

const RETAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
enum Step {
    Accept { owned: bool },
    Start(usize),
    Progress(usize),
    Respond(usize, u16),
    Break(usize),
    Cancel(usize),
    Forget(usize),
    DropClaim(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    let job = 0_usize..8;
    prop_oneof![
        3 => any::<bool>().prop_map(|owned| Step::Accept { owned }),
        2 => job.clone().prop_map(Step::Start),
        1 => job.clone().prop_map(Step::Progress),
        3 => (job.clone(), 200_u16..600).prop_map(|(job, code)| Step::Respond(job, code)),
        1 => job.clone().prop_map(Step::Break),
        2 => job.clone().prop_map(Step::Cancel),
        1 => job.clone().prop_map(Step::Forget),
        1 => job.prop_map(Step::DropClaim),
        1 => (1_u64..50).prop_map(Step::Wait),
    ]
}

/// What the store must say of a job.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Known {
    Is(Status),
    Unknown,
}

struct Modeled {
    id: JobId,
    owner: Option<Owner>,
    claim: Option<MemoryClaim>,
    known: Known,
    ended: Option<Instant>,
}

impl Modeled {
    fn is_unfinished(&self) -> bool {
        matches!(self.known, Known::Is(status) if !status.is_ended())
    }

    fn is_expired(&self) -> bool {
        self.ended.is_some_and(|ended| ended.elapsed() >= RETAIN)
    }

    fn end(&mut self, status: Status) {
        if self.is_unfinished() {
            self.known = Known::Is(status);
            self.ended = Some(Instant::now());
        }
    }
}

fn ended(outcome: Outcome) -> End {
    End {
        started: None,
        progress: Progress::default(),
        outcome,
    }
}

fn report(news: News) -> Report {
    Report {
        news,
        estimated_finish: None,
    }
}

async fn take(store: &MemoryStore, jobs: &mut Vec<Modeled>, step: Step) {
    let modeled = match step {
        Step::Accept { owned } => {
            let new = NewJob {
                id: JobId::random(),
                created: Instant::now(),
                created_at: SystemTime::now(),
                started: None,
                progress: Progress::default(),
                owner: owned.then(|| Owner::new("me")),
                key: None,
                kind: Kind::new("POST /"),
                estimated_finish: None,
                join_only: false,
                run_here: true,
            };
            let (id, owner) = (new.id, new.owner);
            let accepted = store.accept(&new, ()).await;
            let Ok(Acceptance::RunHere(claim)) = accepted else {
                panic!("there is room");
            };
            return jobs.push(Modeled {
                id,
                owner,
                claim: Some(claim),
                known: Known::Is(Status::Queued),
                ended: None,
            });
        }
        Step::Wait(seconds) => return sleep(Duration::from_secs(seconds)).await,
        Step::Start(job)
        | Step::Progress(job)
        | Step::Respond(job, _)
        | Step::Break(job)
        | Step::Cancel(job)
        | Step::Forget(job)
        | Step::DropClaim(job) => match jobs.len() {
            0 => return,
            count => &mut jobs[job % count],
        },
    };
    let id = modeled.id;
    match (step, &modeled.claim) {
        (Step::Start(_), Some(claim)) => {
            let started = report(News::Started(Instant::now()));
            store.report(claim, started).await.expect("infallible");
            if modeled.known == Known::Is(Status::Queued) {
                modeled.known = Known::Is(Status::Running);
            }
        }
        (Step::Progress(_), Some(claim)) => {
            let progress = report(News::Progress(Progress::default()));
            store.report(claim, progress).await.expect("infallible");
        }
        (Step::Respond(_, code), Some(claim)) => {
            let collected = Collected {
                bytes: Bytes::from_static(b"body"),
                trailers: None,
                charge: store.reserve(4),
            };
            let mut response = Response::new(collected);
            *response.status_mut() = code.try_into().expect("in range");
            let end = ended(Outcome::Response(response));
            let won = store.finish(claim, end).await == Ok(Finished::First);
            assert_eq!(won, modeled.is_unfinished());
            modeled.end(if code < 400 {
                Status::Succeeded
            } else {
                Status::Failed
            });
        }
        (Step::Break(_), Some(claim)) => {
            let end = ended(Outcome::Broke(ErrorCode::Panic));
            let won = store.finish(claim, end).await == Ok(Finished::First);
            assert_eq!(won, modeled.is_unfinished());
            modeled.end(Status::Failed);
        }
        (Step::DropClaim(_), _) => {
            modeled.claim = None;
            modeled.end(Status::Failed);
        }
        (Step::Cancel(_), _) => {
            store.cancel(id).await.expect("infallible");
            modeled.end(Status::Canceled);
        }
        (Step::Forget(_), _) => {
            store.forget(id).await.expect("infallible");
            if !modeled.is_expired() {
                modeled.known = Known::Unknown;
                modeled.ended = None;
            }
        }
        _ => {}
    }
}

async fn check(store: &MemoryStore, jobs: &[Modeled]) {
    let mut owned = 0;
    for job in jobs {
        let found = store.get(job.id).await.expect("infallible");
        match (job.known, found) {
            (Known::Is(_), Lookup::Gone(owner)) if job.is_expired() => assert_eq!(owner, job.owner),
            (Known::Is(status), Lookup::Found(found)) if !job.is_expired() => {
                assert_eq!(found.status, status);
                assert_eq!(found.finished_at.is_some(), status.is_ended());
                owned += usize::from(job.owner.is_some());
            }
            (Known::Unknown, Lookup::Unknown) => {}
            (known, found) => panic!("{known:?} but {found:?}"),
        }
    }
    let listed = store.list(&Filter::new().owner(Owner::new("me"))).await;
    assert_eq!(listed.expect("infallible").jobs.len(), owned);
}

proptest! {
    #[test]
    fn whatever_happens_the_store_does_as_its_model(steps in vec(steps(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let budget = Budget::new(1 << 20);
            let store = MemoryStore::new(RETAIN, budget.clone());
            let mut jobs = Vec::new();
            for step in steps {
                take(&store, &mut jobs, step).await;
                check(&store, &jobs).await;
            }
            // However it went: when every call is gone, no job is unfinished, and none stays.
            let ids: HashMap<_, _> = jobs.iter().map(|job| (job.id, job.known)).collect();
            drop(jobs);
            for (id, known) in ids {
                if let Lookup::Found(job) = store.get(id).await.expect("infallible") {
                    assert!(job.status.is_ended(), "{known:?}");
                }
            }
            sleep(RETAIN * 2).await;
            assert!(store.is_empty());
            assert!(store.shared.owned.is_empty());
            assert_eq!(budget.used(), 0);
        });
    }
}

/// Three threads at once: one ends the job, two forget it.
#[test]
fn what_was_forgotten_by_two_is_not_found() {
    let store = MemoryStore::new(RETAIN, Budget::new(1 << 20));
    let shared = &store.shared;
    let new = NewJob::new(JobId::random());
    let Acceptance::RunHere(claim) = shared.accept(&new) else {
        panic!("there is room");
    };
    // Who ends it has not come to take it out of the unfinished.
    let keep = |ended| {
        shared.ended.insert(ended, ());
    };
    let ending = Ending::early(ErrorCode::Panic);
    assert!(claim.job.end(ending, &shared.clock, keep));
    // The first to forget it has not either.
    assert!(shared.ended.remove(&new.id).is_some());
    shared.remove(new.id);
    assert!(matches!(shared.lookup(new.id, |_| {}), Lookup::Unknown));
}
