//! Kills and restarts one process after the other.

use std::time::Duration;

use tokio::{
    select,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::site::Site;

/// Kills and restarts one process after the other, until `done` is canceled.
pub(crate) async fn kill(site: &mut Site, done: &CancellationToken) {
    let began = Instant::now();
    let report = |event: String| {
        println!("{:5.1} s  {event}", began.elapsed().as_secs_f64());
    };
    for round in 0.. {
        select! {
            () = sleep(Duration::from_millis(1_500)) => {}
            () = done.cancelled() => return,
        }
        let which = round / 3 % 2;
        match round % 3 {
            0 => {
                let worker = &mut site.workers[which];
                worker.kill();
                report(format!("killed worker {which}"));
                sleep(Duration::from_millis(500)).await;
                log_failure(worker.restart());
            }
            1 => {
                let web = &mut site.webs[which];
                web.kill();
                report(format!("killed web process {which}"));
                sleep(Duration::from_millis(500)).await;
                log_failure(web.restart());
            }
            _ => {
                let server = round / 3 % 3;
                site.servers.kill_node(server);
                report(format!("killed nats-server {server}"));
                sleep(Duration::from_secs(2)).await;
                site.servers.start_node(server);
                // The next kill must leave two current replicas of three.
                let streams = ["accepted_queue", "KV_accepted_jobs"];
                site.servers.whole(&streams).await;
                report(format!("nats-server {server} is current again"));
            }
        }
    }
}

fn log_failure(restarted: std::io::Result<()>) {
    if let Err(error) = restarted {
        eprintln!("failed to restart process: {error}");
    }
}
