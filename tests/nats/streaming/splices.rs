//! Readers that resume at random offsets while producers die: none gets bytes of two calls.
//!
//! `ACCEPTED_STREAM_CASES` sets the number of jobs (default: 100).
//! `ACCEPTED_STREAM_SEED` sets the sizes and the offsets:
//!
//! `ACCEPTED_STREAM_CASES=1000 cargo test --all-features --test nats splices -- --nocapture`

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_accepted::{
    ErrorCode, JobId,
    store::{
        End, Finished, Outcome, Queue, Store, Work,
        nats::{NatsClaim, NatsStore},
    },
};

use super::{STEP_TIMEOUT, enqueue, output, publish_part, read, respond, respond_whole, rest};
use crate::{
    chaos::shared::number,
    site::{Deployment, options, or_skip, until},
};

/// The number of cases in which a producer dies, and of those at a time.
const CASES: u64 = 100;
const CONCURRENT_CASES: usize = 25;

/// Says what the producers of a case do.
struct Plan {
    case: u64,
    /// The lengths of the pieces of each call. All but the last call die, or are handed back.
    calls: Vec<Vec<usize>>,
    is_handed_back: bool,
}

impl Plan {
    fn random(case: u64, random: &mut StdRng) -> Self {
        let calls = random.random_range(2..=3);
        let calls = (0..calls).map(|_| {
            let pieces = random.random_range(1..8);
            (0..pieces)
                .map(|_| match random.random_range(0..10) {
                    0 => random.random_range(0..400_000),
                    1..4 => random.random_range(0..10_000),
                    _ => random.random_range(0..100),
                })
                .collect()
        });
        Self {
            case,
            calls: calls.collect(),
            is_handed_back: random.random_ratio(1, 3),
        }
    }

    fn length(&self, run: u32) -> usize {
        self.call(run).iter().sum()
    }

    /// Returns the pieces of a call. Those after the last one, which are due to a slow machine, are
    /// like it.
    fn call(&self, run: u32) -> &[usize] {
        &self.calls[(run as usize).min(self.calls.len()) - 1]
    }
}

/// Runs the calls of all cases until they are aborted.
async fn run_calls(store: NatsStore, plans: Arc<Mutex<HashMap<JobId, Arc<Plan>>>>) {
    loop {
        for ticket in store.next(8).await.unwrap() {
            let (store, plans) = (store.clone(), plans.clone());
            tokio::spawn(async move {
                if let Some(work) = store.claim(ticket).await.unwrap() {
                    let plan = plans.lock()[&work.id].clone();
                    run_call(&store, &plan, work).await;
                }
            });
        }
    }
}

async fn run_call(store: &NatsStore, plan: &Plan, work: Work<NatsClaim>) {
    let run = work.attempt;
    let mut writer = respond(store, &work.claim);
    let mut at = 0;
    for length in plan.call(run) {
        publish_part(&mut writer, output(plan.case, run, at..at + length)).await;
        at += length;
        sleep(Duration::from_millis(at as u64 % 7)).await;
    }
    // A slow machine may lose its lease.
    if run as usize >= plan.calls.len() {
        respond_whole(store, &work.claim, writer).await;
    } else if plan.is_handed_back {
        drop(writer);
        let end = End::new(Outcome::NoResponse(ErrorCode::Shutdown));
        let finished = store.finish(&work.claim, end).await.unwrap();
        assert_ne!(finished, Finished::First);
    }
    // Otherwise the process dies: what is in flight may or may not be stored.
}

/// Reads the output of a case as clients do that lose their connection and resume. Returns the
/// number of runs that it has seen.
async fn resume(store: &NatsStore, id: JobId, plan: &Plan, mut random: StdRng) -> usize {
    let (mut run, mut at, mut runs) = (0, 0, 0);
    loop {
        let reading = read(store, id, at).await.expect("a response");
        if reading.run != run {
            let may_end = reading.run as usize >= plan.calls.len();
            assert!(reading.run > run || may_end, "an earlier run than {run}");
            runs += 1;
            run = reading.run;
            // Resumes anywhere, as a client that has lost what it knew.
            at = random.random_range(0..=plan.length(run));
            continue;
        }
        assert!(reading.available as usize <= plan.length(run));
        let mut body = reading.response.into_body();
        let mut frames = random.random_range(1..6);
        let end = loop {
            if frames == 0 {
                break None;
            }
            frames -= 1;
            match timeout(STEP_TIMEOUT, body.frame()).await.unwrap() {
                Some(Ok(frame)) => {
                    let data = frame.into_data().expect("no trailers");
                    let expected = output(plan.case, run, at..at + data.len());
                    assert!(data == expected, "other bytes at {at} of run {run}");
                    at += data.len();
                }
                other => break Some(other),
            }
        };
        match end {
            Some(None) => {
                assert!(run as usize >= plan.calls.len());
                assert_eq!(at, plan.length(run));
                return runs;
            }
            Some(Some(Err(_))) | None => {}
            Some(Some(Ok(_))) => unreachable!("frames go on"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_gets_bytes_of_two_calls() {
    let nats = or_skip!(Deployment::start(options().attempts(1_000)));
    let cases = number("ACCEPTED_STREAM_CASES").unwrap_or(CASES);
    let seed = number("ACCEPTED_STREAM_SEED").unwrap_or(7);
    println!("{cases} cases, ACCEPTED_STREAM_SEED={seed}");
    let plans = Arc::default();
    let mut workers = JoinSet::new();
    for _ in 0..2 {
        workers.spawn(run_calls(nats.store().await, Arc::clone(&plans)));
    }
    let (front, others) = (nats.store().await, [nats.store().await, nats.store().await]);
    let runs = stream::iter(0..cases).map(|case| {
        let (front, others, plans) = (&front, &others, &plans);
        async move {
            let mut random = StdRng::seed_from_u64(seed ^ (case << 16));
            let (id, plan) = (JobId::random(), Arc::new(Plan::random(case, &mut random)));
            plans.lock().insert(id, plan.clone());
            enqueue(front, id).await;
            let readers = (0..4).map(|reader| {
                let random = StdRng::seed_from_u64(random.random());
                resume(&others[reader % 2], id, &plan, random)
            });
            let readers: Vec<_> = readers.collect();
            let runs = join_all(readers).await;
            for from in [0, plan.length(u32::MAX) / 2] {
                let reading = read(front, id, from).await.expect("a result");
                let whole = output(case, reading.run, from..plan.length(reading.run));
                let result = rest(reading.response.into_body()).await;
                assert!(result == (whole.to_vec(), false), "case {case}");
            }
            runs.into_iter().max().unwrap_or(0)
        }
    });
    let runs: Vec<usize> = runs.buffer_unordered(CONCURRENT_CASES).collect().await;
    let seen = runs.iter().filter(|runs| **runs > 1).count();
    println!("readers have seen two or more runs in {seen} cases");
    assert!(seen * 2 > runs.len(), "most cases have readers of two runs");
    workers.shutdown().await;
    until(async || {
        [&front, &others[0], &others[1]]
            .iter()
            .all(|store| store.budget().used() == 0)
    })
    .await;
}
