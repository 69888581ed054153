//! Kills the processes, in the order of a seed.

use std::{ops::Range, time::Duration};

use rand::{RngExt, rngs::StdRng};
use tokio::{sync::watch, time::sleep};

use super::{
    PROCESSES,
    shared::{Diary, FaultTimes, TestProcess},
};

/// The pause before a kill, in milliseconds.
const PAUSE_MS: Range<u64> = 700..1_600;

/// The time until a killed process is started again, in milliseconds.
const DOWNTIME_MS: Range<u64> = 0..500;

/// The time until a process is killed while it starts, in milliseconds.
const STARTUP_MS: Range<u64> = 0..120;

/// The number of kills, even if all requests are sent sooner.
const MIN_KILLS: usize = 3;

/// Kills and restarts processes until all requests are sent.
///
/// One kill in five strikes both processes, and the third one does. After one in four, the process
/// is killed again while it starts.
pub(super) async fn kill_servers(
    servers: &mut [TestProcess],
    mut random: StdRng,
    all_sent: watch::Receiver<bool>,
    diary: &Diary,
) {
    let mut times = FaultTimes {
        pause: PAUSE_MS,
        min_faults: MIN_KILLS,
        all_sent,
    };
    let mut faults = 0;
    while times.next(&mut random, faults).await {
        let first = random.random_range(0..PROCESSES);
        let strikes_both = random.random_bool(0.2) || faults == 2;
        let downtime = Duration::from_millis(random.random_range(DOWNTIME_MS));
        if strikes_both {
            diary.note("both processes are killed".to_owned());
            servers.iter_mut().for_each(kill);
            sleep(downtime).await;
            servers.iter_mut().for_each(TestProcess::restart);
        } else {
            diary.note(format!("process {first} is killed"));
            kill(&mut servers[first]);
            sleep(downtime).await;
            servers[first].restart();
        }
        if random.random_bool(0.25) {
            let startup = Duration::from_millis(random.random_range(STARTUP_MS));
            sleep(startup).await;
            diary.note(format!("process {first} is killed as it starts"));
            kill(&mut servers[first]);
            servers[first].restart();
        }
        faults += 1;
    }
}

/// Kills a process, which must not have ended by itself.
pub(super) fn kill(server: &mut TestProcess) {
    assert!(!server.has_exited(), "a process has ended by itself");
    server.kill();
}
