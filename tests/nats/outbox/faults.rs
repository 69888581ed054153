//! Processes that die after they have written the end of a job, and before its deliveries.
//!
//! `ACCEPTED_DELIVERY_CASES` sets the number of ends (default: one of each kind).

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::task::JoinHandle;
use tower_accepted::{
    JobId,
    store::{
        Revisions, Store,
        nats::{NatsClaim, NatsOptions, NatsStore, Rerun, Storage},
    },
};

use super::{enqueue, finish, ids, next_work, outbox, run_here, taken_ids};
use crate::{
    chaos::shared::number,
    site::{Deployment, options, or_skip, until},
    streams::stream as open_stream,
    wire::Wire,
};

/// The number of processes that die at a time.
const CONCURRENT_CASES: usize = 12;

/// The end of a job in the process that dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    /// A worker's call ends.
    Call,
    /// A call in the accepting process ends.
    InlineCall,
    /// The job is canceled while it runs elsewhere.
    CancelOfRunning,
    /// The job is canceled while it waits.
    CancelOfQueued,
    /// The job is deleted while it runs elsewhere.
    ForgetOfRunning,
    /// The job is deleted while it waits.
    ForgetOfQueued,
    /// The process that ran the job has died, and it may not run again.
    Loss,
}

const ENDINGS: [Ending; 7] = [
    Ending::Call,
    Ending::InlineCall,
    Ending::CancelOfRunning,
    Ending::CancelOfQueued,
    Ending::ForgetOfRunning,
    Ending::ForgetOfQueued,
    Ending::Loss,
];

impl Ending {
    fn event(self) -> &'static str {
        match self {
            Self::Call | Self::InlineCall => "job.succeeded",
            Self::Loss => "job.failed",
            Self::CancelOfRunning
            | Self::CancelOfQueued
            | Self::ForgetOfRunning
            | Self::ForgetOfQueued => "job.canceled",
        }
    }

    /// Returns the subject that the end creates.
    fn subject(self, prefix: &str, id: JobId) -> String {
        let record = match self {
            Self::CancelOfQueued | Self::ForgetOfQueued => "run",
            _ => "end",
        };
        format!("$KV.{prefix}_jobs.job.{record}.{id}")
    }
}

/// Returns options of streams of their own.
fn options_of(prefix: &str) -> NatsOptions {
    options()
        .prefix(prefix)
        .storage(Storage::Memory)
        .rerun(Rerun::Never)
}

/// A process whose job has ended, and that does not know it.
struct Doomed {
    id: JobId,
    wire: Wire,
    store: NatsStore,
    ending: JoinHandle<()>,
    /// Claims of other processes, which stay alive.
    _others: Vec<NatsClaim>,
}

impl Doomed {
    /// Ends a job of the streams with this prefix in a process behind a wire, up to the write.
    async fn end(nats: &Deployment, options: &NatsOptions, prefix: &str, ending: Ending) -> Self {
        let (wire, store) = nats.store_behind_wire(options.clone()).await;
        let other = nats.store_with(options.clone()).await;
        let mut others = Vec::new();
        let mut own = None;
        let id = match ending {
            Ending::InlineCall => {
                let (id, claim) = run_here(&store).await;
                own = Some(claim);
                id
            }
            _ => enqueue(&other).await,
        };
        match ending {
            Ending::Call => own = Some(next_work(&store).await.claim),
            Ending::CancelOfRunning | Ending::ForgetOfRunning => {
                others.push(next_work(&other).await.claim);
            }
            // The claim is dropped, so nothing renews its lease.
            Ending::Loss => drop(next_work(&other).await),
            Ending::InlineCall | Ending::CancelOfQueued | Ending::ForgetOfQueued => {}
        }
        let subject = ending.subject(prefix, id);
        wire.hold_at(&format!("HPUB {subject}"));
        let doing = tokio::spawn({
            let store = store.clone();
            async move {
                match ending {
                    Ending::Call | Ending::InlineCall => {
                        finish(&store, &own.expect("a claim")).await;
                    }
                    Ending::CancelOfRunning | Ending::CancelOfQueued => {
                        store.cancel(id, &Revisions::Any).await.unwrap();
                    }
                    Ending::ForgetOfRunning | Ending::ForgetOfQueued => {
                        store.forget(id, &Revisions::Any).await.unwrap();
                    }
                    Ending::Loss => drop(next_work(&store).await),
                }
            }
        });
        wire.held().await;
        let bucket = open_stream(&nats.servers, &format!("KV_{prefix}_jobs")).await;
        let written = async || {
            bucket
                .get_last_raw_message_by_subject(&subject)
                .await
                .is_ok()
        };
        until(written).await;
        Self {
            id,
            wire,
            store,
            ending: doing,
            _others: others,
        }
    }

    async fn die(self) -> JobId {
        self.wire.cut(true);
        self.ending.abort();
        let ended = self.ending.await;
        assert!(ended.is_err_and(|error| error.is_cancelled()));
        drop(self.store);
        self.id
    }
}

/// Returns the numbers of deliveries and of queued requests.
async fn counts(nats: &Deployment, prefix: &str) -> (u64, u64) {
    let messages = async |name: &str| {
        let stream = open_stream(&nats.servers, &format!("{prefix}_{name}")).await;
        stream.get_info().await.unwrap().state.messages
    };
    (messages("deliveries").await, messages("queue").await)
}

/// Waits until the deliveries are recorded and the request has left the queue.
async fn repaired(nats: &Deployment, prefix: &str, store: &NatsStore, id: JobId, ending: Ending) {
    until(async || counts(nats, prefix).await == (2, 0)).await;
    let recorded = outbox(store).of_job(id).await.unwrap();
    assert_eq!(taken_ids(&recorded), ids(id), "{ending:?}");
    for delivery in recorded {
        assert_eq!(delivery.event, ending.event());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_of_a_dead_process_are_recorded() {
    let nats = &or_skip!(Deployment::start(options()));
    let cases = number("ACCEPTED_DELIVERY_CASES").unwrap_or(ENDINGS.len() as u64);
    let done = stream::iter(0..cases)
        .map(async |case| {
            let ending = ENDINGS[case as usize % ENDINGS.len()];
            let prefix = format!("case-{case}");
            let options = options_of(&prefix);
            let doomed = Doomed::end(nats, &options, &prefix, ending).await;
            assert_eq!(counts(nats, &prefix).await, (0, 1), "{ending:?}");
            let id = doomed.die().await;
            let worker = nats.store_with(options).await;
            tokio::select! {
                work = next_work(&worker) => panic!("{ending:?}: an ended job runs: {work:?}"),
                () = repaired(nats, &prefix, &worker, id, ending) => {}
            }
            ending
        })
        .buffer_unordered(CONCURRENT_CASES)
        .fold(BTreeMap::new(), async |mut done, ending| {
            *done.entry(ending).or_insert(0) += 1;
            done
        })
        .await;
    println!("recorded after a death: {done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_recorded_without_a_worker() {
    let nats = or_skip!(Deployment::start(options()));
    let options = options_of("idle").retain(Duration::from_secs(8));
    let ending = Ending::CancelOfQueued;
    let doomed = Doomed::end(&nats, &options, "idle", ending).await;
    assert_eq!(counts(&nats, "idle").await, (0, 1));
    let id = doomed.die().await;
    // It refreshes the queue.
    let front = nats.store_with(options).await;
    repaired(&nats, "idle", &front, id, ending).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_recorded_before_a_job_is_forgotten() {
    let nats = or_skip!(Deployment::start(options()));
    let options = options_of("gone");
    let doomed = Doomed::end(&nats, &options, "gone", Ending::Call).await;
    let id = doomed.die().await;
    let front = nats.store_with(options).await;
    front.forget(id, &Revisions::Any).await.unwrap();
    repaired(&nats, "gone", &front, id, Ending::Call).await;
}
