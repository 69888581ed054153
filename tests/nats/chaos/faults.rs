//! Faults: killed workers, killed servers and cut connections, in the order of a seed.

use std::{ops::Range, time::Duration};

use async_nats::jetstream;
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use tokio::{sync::watch, time::sleep};

use super::{
    STREAMS,
    shared::{Diary, FaultTimes, TestProcess},
};
use crate::{server::Servers, wire::Wire};

/// The duration of a cut.
const CUT: Duration = Duration::from_secs(5);

/// The pause before a fault, in milliseconds.
const PAUSE_MS: Range<u64> = 200..1_500;

/// The number of faults of each kind, even if all requests are sent sooner.
const MIN_FAULTS: usize = 2;

fn times(all_sent: watch::Receiver<bool>) -> FaultTimes {
    FaultTimes {
        pause: PAUSE_MS,
        min_faults: MIN_FAULTS,
        all_sent,
    }
}

/// Kills and restarts workers until all requests are sent.
pub(super) async fn kill_workers(
    workers: &mut [TestProcess],
    mut random: StdRng,
    all_sent: watch::Receiver<bool>,
    diary: &Diary,
) {
    let (mut faults, mut times) = (0, times(all_sent));
    while times.next(&mut random, faults).await {
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
    all_sent: watch::Receiver<bool>,
    diary: &Diary,
) {
    let (mut faults, mut times) = (0, times(all_sent));
    while times.next(&mut random, faults).await {
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
