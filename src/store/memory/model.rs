//! Compares the store in memory with a model, for any sequence of operations.

use std::{
    collections::HashMap,
    task::{Context, Poll, Waker},
    time::Duration,
};

use proptest::{collection::vec, prelude::*};
use tokio::time::{Instant, sleep};

use bytes::Bytes;
use http::Response;

use super::{claim::MemoryClaim, store::MemoryStore, table::Inserted, unfinished::Ending};
use crate::{
    job::{ErrorCode, Filter, JobId, Owner, Progress, Status},
    limit::Budget,
    store::{
        Acceptance, End, Finished, Lookup, NewJob, News, Outcome, Report, Revisions, Store, Writer,
    },
};

const RETAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
enum ModelStep {
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

fn steps() -> impl Strategy<Value = ModelStep> {
    let job = 0_usize..8;
    prop_oneof![
        3 => any::<bool>().prop_map(|owned| ModelStep::Accept { owned }),
        2 => job.clone().prop_map(ModelStep::Start),
        1 => job.clone().prop_map(ModelStep::Progress),
        3 => (job.clone(), 200_u16..600).prop_map(|(job, code)| ModelStep::Respond(job, code)),
        1 => job.clone().prop_map(ModelStep::Break),
        2 => job.clone().prop_map(ModelStep::Cancel),
        1 => job.clone().prop_map(ModelStep::Forget),
        1 => job.prop_map(ModelStep::DropClaim),
        1 => (1_u64..50).prop_map(ModelStep::Wait),
    ]
}

/// The expected answer of the store for a job.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Is(Status),
    Unknown,
}

struct ModeledJob {
    id: JobId,
    owner: Option<Owner>,
    claim: Option<MemoryClaim>,
    expected: Expected,
    ended: Option<Instant>,
}

impl ModeledJob {
    fn is_unfinished(&self) -> bool {
        matches!(self.expected, Expected::Is(status) if !status.is_ended())
    }

    fn is_expired(&self) -> bool {
        self.ended.is_some_and(|ended| ended.elapsed() >= RETAIN)
    }

    fn end(&mut self, status: Status) {
        if self.is_unfinished() {
            self.expected = Expected::Is(status);
            self.ended = Some(Instant::now());
        }
    }
}

async fn take(store: &MemoryStore, jobs: &mut Vec<ModeledJob>, step: ModelStep) {
    let modeled = match step {
        ModelStep::Accept { owned } => {
            let mut new = NewJob::new(JobId::random());
            new.owner = owned.then(|| Owner::new("me"));
            new.run_here = true;
            let (id, owner) = (new.id, new.owner);
            let accepted = store.accept(&new, ()).await;
            let Ok(Acceptance::RunHere(claim)) = accepted else {
                panic!("there is room");
            };
            return jobs.push(ModeledJob {
                id,
                owner,
                claim: Some(claim),
                expected: Expected::Is(Status::Queued),
                ended: None,
            });
        }
        ModelStep::Wait(seconds) => return sleep(Duration::from_secs(seconds)).await,
        ModelStep::Start(job)
        | ModelStep::Progress(job)
        | ModelStep::Respond(job, _)
        | ModelStep::Break(job)
        | ModelStep::Cancel(job)
        | ModelStep::Forget(job)
        | ModelStep::DropClaim(job) => match jobs.len() {
            0 => return,
            count => &mut jobs[job % count],
        },
    };
    let id = modeled.id;
    match (step, &modeled.claim) {
        (ModelStep::Start(_), Some(claim)) => {
            let started = Report::new(News::Started(Instant::now()));
            store.report(claim, started).await.expect("infallible");
            if modeled.expected == Expected::Is(Status::Queued) {
                modeled.expected = Expected::Is(Status::Running);
            }
        }
        (ModelStep::Progress(_), Some(claim)) => {
            let progress = Report::new(News::Progress(Progress::default()));
            store.report(claim, progress).await.expect("infallible");
        }
        (ModelStep::Respond(_, code), Some(claim)) => {
            let mut response = Response::new(());
            *response.status_mut() = code.try_into().expect("in range");
            let mut writer = store.respond(claim, response.into_parts().0, None);
            let room = writer.poll_room(4, &mut Context::from_waker(Waker::noop()));
            assert!(matches!(room, Poll::Ready(Ok(()))));
            writer.push(Bytes::from_static(b"body"));
            let end = End::new(Outcome::Response(writer));
            let won = store.finish(claim, end).await == Ok(Finished::First);
            assert_eq!(won, modeled.is_unfinished());
            modeled.end(if code < 400 {
                Status::Succeeded
            } else {
                Status::Failed
            });
        }
        (ModelStep::Break(_), Some(claim)) => {
            let end = End::new(Outcome::NoResponse(ErrorCode::Panic));
            let won = store.finish(claim, end).await == Ok(Finished::First);
            assert_eq!(won, modeled.is_unfinished());
            modeled.end(Status::Failed);
        }
        (ModelStep::DropClaim(_), _) => {
            modeled.claim = None;
            modeled.end(Status::Failed);
        }
        (ModelStep::Cancel(_), _) => {
            store.cancel(id, &Revisions::Any).await.expect("infallible");
            modeled.end(Status::Canceled);
        }
        (ModelStep::Forget(_), _) => {
            store.forget(id, &Revisions::Any).await.expect("infallible");
            if !modeled.is_expired() {
                modeled.expected = Expected::Unknown;
                modeled.ended = None;
            }
        }
        _ => {}
    }
}

async fn check(store: &MemoryStore, jobs: &[ModeledJob]) {
    let mut owned = 0;
    for job in jobs {
        let found = store.get(job.id).await.expect("infallible");
        match (job.expected, found) {
            (Expected::Is(_), Lookup::Gone(owner)) if job.is_expired() => {
                assert_eq!(owner, job.owner)
            }
            (Expected::Is(status), Lookup::Found(found)) if !job.is_expired() => {
                assert_eq!(found.status, status);
                assert_eq!(found.finished_at.is_some(), status.is_ended());
                owned += usize::from(job.owner.is_some());
            }
            (Expected::Unknown, Lookup::Unknown) => {}
            (expected, found) => panic!("{expected:?} but {found:?}"),
        }
    }
    let listed = store.list(&Filter::new().owner(Owner::new("me"))).await;
    assert_eq!(listed.expect("infallible").jobs.len(), owned);
}

proptest! {
    #[test]
    fn store_behaves_as_its_model(steps in vec(steps(), 0..40)) {
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
            // Once every claim is dropped, no job is unfinished, and none stays.
            let ids: HashMap<_, _> = jobs.iter().map(|job| (job.id, job.expected)).collect();
            drop(jobs);
            for (id, expected) in ids {
                if let Lookup::Found(job) = store.get(id).await.expect("infallible") {
                    assert!(job.status.is_ended(), "{expected:?}");
                }
            }
            sleep(RETAIN * 2).await;
            assert!(store.is_empty());
            assert!(!store.table().has_owners());
            assert_eq!(budget.used(), 0);
        });
    }
}

/// Plays three threads: one ends the job, two forget it.
#[test]
fn job_that_two_forget_is_not_found() {
    let store = MemoryStore::new(RETAIN, Budget::new(1 << 20));
    let table = store.table();
    let new = NewJob::new(JobId::random());
    let Inserted::New(job, _charge) = table.accept(&new) else {
        panic!("there is room");
    };
    // The first thread has not yet removed the job from the unfinished ones.
    let keep = |ended| table.insert_ended(ended);
    let ending = Ending::without_response(ErrorCode::Panic);
    assert!(job.end(ending, table.clock(), keep).is_some());
    // Nor has the second, which forgets it.
    assert!(table.remove_ended(new.id));
    table.remove(new.id);
    assert!(matches!(table.lookup(new.id), Lookup::Unknown));
}
