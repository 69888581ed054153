//! Estimates: a process forecasts jobs that others ran.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    site::{Deployment, Front, options, or_skip, until, wait_for_end},
    support::{Answer, inner, ok, post, send},
};

/// The run time of each job. The default forecast is shorter.
const JOB_SECONDS: u64 = 2;

fn retry_after(accepted: &Answer) -> u64 {
    let seconds = accepted.header("retry-after").expect("an unfinished job");
    seconds.parse().expect("whole seconds")
}

/// Accepts a job, and returns whether its forecast comes from the jobs before.
async fn forecasts_from_history(site: &Front) -> bool {
    let next = send(site, post("/reports")).await;
    retry_after(&next) >= JOB_SECONDS && next.json().get("estimatedFinishAt").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_process_forecasts_jobs_that_others_ran() {
    let nats = or_skip!(Deployment::start(options()));
    let site = nats.front().await;
    let service = inner(async |_| {
        sleep(Duration::from_secs(JOB_SECONDS)).await;
        ok("done")
    });
    nats.worker(service).await;
    let first = send(&site, post("/reports")).await;
    assert_eq!(retry_after(&first), 1, "there is no history");
    assert!(first.json().get("estimatedFinishAt").is_none());
    let mut accepted = vec![first];
    for _ in 0..50 {
        accepted.push(send(&site, post("/reports")).await);
    }
    for job in &accepted {
        wait_for_end(&site, job.location()).await;
    }
    until(async || forecasts_from_history(&site).await).await;

    let late = nats.front().await;
    until(async || forecasts_from_history(&late).await).await;
}
