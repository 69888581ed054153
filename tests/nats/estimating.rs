//! What one process has seen of how long jobs take, the others know.

use std::time::Duration;

use tokio::time::sleep;
use tower_accepted::Jobs;

use crate::{
    server::Servers,
    site::{ended, layered, options, process, until, work},
    support::{Answer, inner, ok, post, send},
};

fn retry_after(accepted: &Answer) -> u64 {
    let seconds = accepted.header("retry-after").expect("unfinished");
    seconds.parse().expect("whole seconds")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_runs_nothing_tells_how_long_jobs_take_from_what_others_ran() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let web = process(&servers, options(), Jobs::builder()).await;
    let worker = process(&servers, options(), Jobs::builder()).await;
    let never = inner(async |_| ok("not run here"));
    let site = layered(&web, never.clone());
    work(
        &worker,
        inner(async |_| {
            sleep(Duration::from_secs(3)).await;
            ok("done")
        }),
    );
    let first = send(&site, post("/reports")).await;
    assert_eq!(retry_after(&first), 1, "nothing is known yet");
    assert!(first.json().get("estimatedFinishAt").is_none());
    let mut accepted = vec![first];
    for _ in 0..50 {
        accepted.push(send(&site, post("/reports")).await);
    }
    for one in &accepted {
        ended(&site, one.location()).await;
    }
    let is_told = async |site: &_| {
        let next = send(site, post("/reports")).await;
        retry_after(&next) >= 3 && next.json().get("estimatedFinishAt").is_some()
    };
    until(async || is_told(&site).await).await;

    // One that comes when all has been told.
    let late = process(&servers, options(), Jobs::builder()).await;
    let late = layered(&late, never);
    until(async || is_told(&late).await).await;
}
