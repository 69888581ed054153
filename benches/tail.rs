//! The longest steps of the store in memory while it grows, evicts, and expires a million at once.
//!
//! `cargo bench --bench tail` prints the table in `benches/README.md`. Each histogram has a row for
//! the wall clock and one for the thread's processor time, which excludes other processes.

use std::{
    fmt,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt;
use hdrhistogram::Histogram;
use http::{HeaderValue, Request, Response, header, response};
use http_body_util::Full;
use rustix::time::{ClockId, clock_gettime};
use tokio::{runtime::Runtime, task::yield_now, time::advance};
use tower::{Layer, Service, service_fn};
use tower_accepted::{
    JobId, Jobs, RequestBody,
    store::{
        Acceptance, Budget, End, Finished, MemoryClaim, MemoryStore, NewJob, Outcome, Revisions,
        Store, Writer,
    },
};

const JOBS: usize = 1_000_000;

/// The number of new jobs per millisecond of the runtime's clock, which this program advances.
const PER_MILLISECOND: usize = 60;

/// Makes as many jobs expire as are added, once there are [`JOBS`].
const RETAIN: Duration = Duration::from_millis((JOBS / PER_MILLISECOND) as u64);

/// The number of jobs that are read while the others expire.
const SURVIVORS: usize = 1_000;

/// The number of jobs that are deleted at the end.
const REMOVALS: usize = 100_000;

const READS: usize = 300_000;
const STORMS: usize = 5;

fn main() {
    println!("| in microseconds | clock | p50 | p99 | p99.9 | p99.99 | longest | over 1 ms |");
    println!("|---|---|---|---|---|---|---|---|");
    runtime().block_on(grow_without_a_map());
    runtime().block_on(grow());
    storms();
}

/// Adds a million jobs, then a million more while as many expire.
async fn grow() {
    let store = MemoryStore::new(RETAIN, Budget::new(usize::MAX));
    let (mut growing, mut growing_ends) = (Times::new(), Times::new());
    let (mut evicting, mut evicting_ends) = (Times::new(), Times::new());
    let (mut turns, mut removals) = (Times::new(), Times::new());
    let mut newest = Vec::with_capacity(REMOVALS);
    for made in 1..=2 * JOBS {
        let (accepts, ends) = if made <= JOBS {
            (&mut growing, &mut growing_ends)
        } else {
            (&mut evicting, &mut evicting_ends)
        };
        let new = NewJob::new(JobId::random());
        let claim = accepts.take(|| accept(&store, &new));
        let head = response_head();
        ends.take(|| finish(&store, &claim, head));
        drop(claim);
        if made > 2 * JOBS - REMOVALS {
            newest.push(new.id);
        }
        if made % PER_MILLISECOND == 0 {
            let turn = Timer::start();
            // Lets the reaper have one turn.
            advance(Duration::from_millis(1)).await;
            turns.add(&turn);
        }
    }
    // The reaper frees expired jobs up to a second late.
    let late = 2 * PER_MILLISECOND * 1_000;
    assert!(
        (JOBS..JOBS + late).contains(&store.len()),
        "{} jobs",
        store.len()
    );
    for id in newest {
        removals.take(|| store.forget(id, &Revisions::Any).now_or_never());
    }
    growing.print("accept, growing to 1,000,000");
    growing_ends.print("end, growing to 1,000,000");
    evicting.print("accept, as many expiring");
    evicting_ends.print("end, as many expiring");
    turns.print("runtime turn, in which the reaper frees 64 jobs");
    // A removal takes at least as long as the reaper holds a shard for one job.
    removals.print("removal, of 1,000,000");
}

/// Runs the same loop with a vector instead of a store, which shows the pauses of the machine.
async fn grow_without_a_map() {
    /// The approximate size of a job and its result.
    const JOB_BYTES: usize = 320;
    let mut kept: Vec<Option<Box<[u8]>>> = vec![None; JOBS];
    let mut times = Times::new();
    for made in 0..2 * JOBS {
        let new = black_box(NewJob::new(JobId::random()));
        times.take(|| kept[made % JOBS] = Some(vec![1; JOB_BYTES].into()));
        drop((new, black_box(response_head())));
        if made % PER_MILLISECOND == 0 {
            advance(Duration::from_millis(1)).await;
        }
    }
    black_box(kept);
    times.print("the same loop without a map");
}

/// Lets a million jobs expire at once while another thread reads others.
fn storms() {
    let (mut quiet, mut stormy, mut turns) = (Times::new(), Times::new(), Times::new());
    let mut ratios = Vec::new();
    for _ in 0..STORMS {
        let storm = Storm::new();
        let (calm, windy) = storm.read_through(&mut turns);
        let p99 = |times: &Times| (times.wall.value_at_quantile(0.99), times.own_p99());
        let ((calm_wall, calm_own), (windy_wall, windy_own)) = (p99(&calm), p99(&windy));
        ratios.push((
            windy_wall as f64 / calm_wall as f64,
            windy_own as f64 / calm_own as f64,
        ));
        quiet.merge(&calm);
        stormy.merge(&windy);
    }
    quiet.print("status read, before a storm");
    stormy.print("status read, 1,000,000 jobs expiring");
    turns.print("runtime turn in a storm, in which the reaper frees 64 jobs");
    for (name, mut ratios) in [
        (
            "wall",
            ratios.iter().map(|ratio| ratio.0).collect::<Vec<_>>(),
        ),
        ("own", ratios.iter().map(|ratio| ratio.1).collect()),
    ] {
        ratios.sort_by(f64::total_cmp);
        println!(
            "ratio of the p99 of reads in a storm to before, {name}: {:.2} ({:.2} to {:.2})",
            ratios[STORMS / 2],
            ratios[0],
            ratios[STORMS - 1],
        );
    }
}

/// A store full of jobs that are about to expire, and a few that survive.
struct Storm {
    /// Runs the reaper. Readers run on another thread.
    runtime: Runtime,
    store: MemoryStore,
    survivors: Vec<JobId>,
}

impl Storm {
    fn new() -> Self {
        let runtime = runtime();
        let store = MemoryStore::new(RETAIN, Budget::new(usize::MAX));
        let make = || {
            let new = NewJob::new(JobId::random());
            let claim = accept(&store, &new);
            finish(&store, &claim, response_head());
            new.id
        };
        let survivors = runtime.block_on(async {
            for _ in 0..JOBS {
                make();
            }
            advance(RETAIN / 2).await;
            (0..SURVIVORS).map(|_| make()).collect()
        });
        Self {
            runtime,
            store,
            survivors,
        }
    }

    /// Measures reads before and during the storm, and the turns of the reaper.
    fn read_through(self, turns: &mut Times) -> (Times, Times) {
        let is_over = Arc::new(AtomicBool::new(false));
        let (begin, begun) = mpsc::channel();
        let (reader_store, survivors, reader_over) =
            (self.store.clone(), self.survivors, is_over.clone());
        let reader = thread::spawn(move || {
            let jobs = Jobs::builder().store(reader_store).build();
            let layer = jobs.layer();
            let mut service = layer.layer(service_fn(async |_: Request<RequestBody<Body>>| {
                Ok::<_, std::convert::Infallible>(Response::new(Body::default()))
            }));
            let mut next = survivors.iter().cycle();
            let mut read = |times: &mut Times| {
                let job = next.next().expect("some survive");
                let request = Request::get(format!("/jobs/{job}")).body(Body::default());
                let request = request.expect("a request");
                let answer = times.take(|| service.call(request).now_or_never());
                let answer = answer.expect("ready at once").expect("an answer");
                assert_eq!(answer.status(), 200);
            };
            let (mut warm_up, mut calm, mut windy) = (Times::new(), Times::new(), Times::new());
            (0..READS / 10).for_each(|_| read(&mut warm_up));
            (0..READS).for_each(|_| read(&mut calm));
            begin.send(()).expect("a storm to come");
            // `Relaxed`: it only stops the loop. The results pass through the join.
            while !reader_over.load(Ordering::Relaxed) {
                read(&mut windy);
            }
            (calm, windy)
        });
        begun.recv().expect("a reader");
        let store = &self.store;
        self.runtime.block_on(async {
            assert_eq!(store.len(), JOBS + SURVIVORS);
            // A second more, so that the reaper wakes up.
            advance(RETAIN / 2 + Duration::from_secs(1)).await;
            while store.len() > SURVIVORS {
                let turn = Timer::start();
                yield_now().await;
                turns.add(&turn);
            }
        });
        is_over.store(true, Ordering::Relaxed);
        reader.join().expect("reads that were answered")
    }
}

type Body = Full<Bytes>;

fn accept(store: &MemoryStore, new: &NewJob) -> MemoryClaim {
    match store.accept(new, ()).now_or_never() {
        Some(Ok(Acceptance::RunHere(claim))) => claim,
        _ => panic!("the store accepts at once"),
    }
}

/// Ends a job with a response of 100 bytes.
fn finish(store: &MemoryStore, claim: &MemoryClaim, head: response::Parts) {
    let body = Bytes::from_static(&[b'7'; 100]);
    let mut writer = store.respond(claim, head, None);
    let mut no_waker = Context::from_waker(Waker::noop());
    let room = writer.poll_room(body.len(), &mut no_waker);
    assert!(matches!(room, Poll::Ready(Ok(()))));
    writer.push(body);
    let end = End::new(Outcome::Response(writer));
    let finished = store.finish(claim, end).now_or_never();
    assert!(matches!(finished, Some(Ok(Finished::First))));
}

/// Returns the head of a response with three headers.
fn response_head() -> response::Parts {
    let (mut head, ()) = Response::new(()).into_parts();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::ETAG, "\"6a1f9c52e0b84d37\""),
        (header::SERVER, "9f1c4e7a2b8d4056a3e1c07d5b92f864"),
    ] {
        head.headers.insert(name, HeaderValue::from_static(value));
    }
    head
}

/// Creates a runtime of one thread with a clock that only this program advances.
fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime")
}

struct Timer {
    wall: Instant,
    own: Duration,
}

impl Timer {
    fn start() -> Self {
        let own = processor_time();
        Self {
            wall: Instant::now(),
            own,
        }
    }
}

/// Histograms of a step, in nanoseconds.
struct Times {
    wall: Histogram<u64>,
    own: Histogram<u64>,
}

impl Times {
    fn new() -> Self {
        // Up to a minute, with three digits.
        let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
        Self {
            wall: histogram(),
            own: histogram(),
        }
    }

    fn take<T>(&mut self, step: impl FnOnce() -> T) -> T {
        let timer = Timer::start();
        let done = step();
        self.add(&timer);
        done
    }

    fn add(&mut self, timer: &Timer) {
        self.wall
            .saturating_record(nanoseconds(timer.wall.elapsed()));
        let own = processor_time().saturating_sub(timer.own);
        self.own.saturating_record(nanoseconds(own));
    }

    fn merge(&mut self, other: &Self) {
        self.wall.add(&other.wall).expect("of one kind");
        self.own.add(&other.own).expect("of one kind");
    }

    fn own_p99(&self) -> u64 {
        self.own.value_at_quantile(0.99)
    }

    fn print(&self, name: &str) {
        println!("| {name} | wall | {}", Row(&self.wall));
        println!("| | own | {}", Row(&self.own));
    }
}

struct Row<'a>(&'a Histogram<u64>);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for quantile in [0.5, 0.99, 0.999, 0.9999, 1.0] {
            let nanoseconds = self.0.value_at_quantile(quantile);
            write!(f, "{:.1} | ", nanoseconds as f64 / 1e3)?;
        }
        write!(f, "{} |", self.0.count_between(1_000_000, u64::MAX))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.try_into().expect("a positive time")
}
