//! Faults: killed workers, killed servers and cut connections, in the order of a seed.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream;
use parking_lot::Mutex;
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep},
};

use super::{STREAMS, worker::WorkerProcess};
use crate::{server::Servers, wire::Wire};

/// The duration of a cut.
const CUT: Duration = Duration::from_secs(5);

/// The number of faults of each kind, even if all requests are sent sooner.
const MIN_FAULTS: usize = 2;

/// A log of all faults with their times.
#[derive(Clone)]
pub(super) struct Diary {
    entries: Arc<Mutex<Vec<String>>>,
    start: Instant,
}

impl Diary {
    pub(super) fn new() -> Self {
        Self {
            entries: Arc::default(),
            start: Instant::now(),
        }
    }

    fn note(&self, event: String) {
        let at = self.elapsed().as_secs_f64();
        self.entries.lock().push(format!("{at:6.2} s  {event}"));
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn text(&self) -> String {
        self.entries.lock().join("\n")
    }
}

/// Waits for a random time. Returns `false` if all requests are sent and enough faults have struck.
async fn next_fault(
    random: &mut StdRng,
    faults: usize,
    all_sent: &mut watch::Receiver<bool>,
) -> bool {
    let pause = Duration::from_millis(random.random_range(200..1_500));
    select! {
        () = sleep(pause) => true,
        _ = all_sent.wait_for(|sent| *sent), if faults >= MIN_FAULTS => false,
    }
}

/// Kills and restarts workers until all requests are sent.
pub(super) async fn kill_workers(
    workers: &mut [WorkerProcess],
    mut random: StdRng,
    mut all_sent: watch::Receiver<bool>,
    diary: &Diary,
) {
    let mut faults = 0;
    while next_fault(&mut random, faults, &mut all_sent).await {
        let worker = random.random_range(0..workers.len());
        diary.note(format!("worker {worker} is killed"));
        workers[worker].kill();
        let pause = Duration::from_millis(random.random_range(0..1_000));
        sleep(pause).await;
        workers[worker].restart();
        faults += 1;
    }
}

/// Cuts replicas off and kills leaders until all requests are sent.
///
/// The first fault is a cut and the second a kill. One fault strikes at a time.
pub(super) async fn break_connections(
    servers: &mut Servers,
    wires: &[Wire],
    mut random: StdRng,
    mut all_sent: watch::Receiver<bool>,
    diary: &Diary,
) {
    let mut faults = 0;
    while next_fault(&mut random, faults, &mut all_sent).await {
        let is_cut = match faults {
            0 => true,
            1 => false,
            _ => random.random(),
        };
        if is_cut {
            let replica = random.random_range(0..wires.len());
            diary.note(format!("replica {replica} is cut off for {CUT:?}"));
            wires[replica].cut(true);
            sleep(CUT).await;
            wires[replica].cut(false);
        } else {
            let stream = *STREAMS.choose(&mut random).expect("two streams");
            let downtime = Duration::from_millis(random.random_range(1_000..4_000));
            kill_leader(servers, stream, downtime, diary).await;
        }
        faults += 1;
    }
}

async fn kill_leader(servers: &mut Servers, stream: &str, downtime: Duration, diary: &Diary) {
    servers.whole(&STREAMS).await;
    let jetstream = jetstream::new(servers.client().await);
    let info = jetstream.get_stream(stream).await;
    let info = info.expect("the cluster is whole");
    let cluster = info.cached_info().cluster.clone();
    let leader = cluster.expect("a cluster").leader.expect("a leader");
    diary.note(format!("{leader} is killed, the leader of {stream}"));
    servers.kill_node(Servers::node(&leader));
    sleep(downtime).await;
    servers.start_node(Servers::node(&leader));
    servers.whole(&STREAMS).await;
    diary.note(format!("{leader} is back"));
}
