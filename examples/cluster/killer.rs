use std::time::Duration;

use tokio::{
    select,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::site::Site;

/// Kills one part of the site after the other, and starts it again, until it is told to stop.
pub(crate) async fn kill(site: &mut Site, done: &CancellationToken) {
    let began = Instant::now();
    let tell = |what: String| {
        println!("{:5.1} s  {what}", began.elapsed().as_secs_f64());
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
                tell(format!("worker {which} is killed"));
                sleep(Duration::from_millis(500)).await;
                restarted(worker.restart());
            }
            1 => {
                let web = &mut site.webs[which];
                web.kill();
                tell(format!("web process {which} is killed"));
                sleep(Duration::from_millis(500)).await;
                restarted(web.restart());
            }
            _ => {
                let server = round / 3 % 3;
                site.servers.kill_node(server);
                tell(format!("nats-server {server} is killed"));
                sleep(Duration::from_secs(2)).await;
                site.servers.start_node(server);
                // Two of three are what it takes.
                let streams = ["accepted_queue", "KV_accepted_jobs"];
                site.servers.whole(&streams).await;
                tell(format!("nats-server {server} is back"));
            }
        }
    }
}

fn restarted(restarted: std::io::Result<()>) {
    if let Err(error) = restarted {
        eprintln!("not started again: {error}");
    }
}
