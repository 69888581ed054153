//! Estimates: processes that share a store learn from the same jobs.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    site::{Deployment, layered, options, or_skip, wait_for_end, work},
    support::{Answer, inner, ok, post, send},
};

/// The run time of each job. The default forecast is shorter.
const JOB_TIME: Duration = Duration::from_secs(3);

fn retry_after(accepted: &Answer) -> u64 {
    let seconds = accepted.header("retry-after").expect("an unfinished job");
    seconds.parse().expect("whole seconds")
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_saw_the_same_jobs_agree() {
    let nats = or_skip!(Deployment::start(options()));
    let (web, worker) = (nats.jobs().await, nats.jobs().await);
    let not_called = inner(async |_| ok("only the worker runs jobs"));
    let web = layered(&web, not_called.clone());
    let other = layered(&worker, not_called);
    work(
        &worker,
        inner(async |_| {
            sleep(JOB_TIME).await;
            ok("done")
        }),
    );
    let first = send(&web, post("/reports")).await;
    assert_eq!(retry_after(&first), 1, "no job has ended yet");
    assert!(first.json().get("estimatedFinishAt").is_none());
    let mut accepted = vec![first];
    for _ in 1..50 {
        accepted.push(send(&web, post("/reports")).await);
    }
    // The worker sees the ends since it runs the jobs, the web process since a client polls it.
    for job in &accepted {
        wait_for_end(&web, job.location()).await;
    }
    // A forecast is at most a second behind its samples.
    sleep(Duration::from_secs(1)).await;
    wait_for_end(&web, send(&web, post("/reports")).await.location()).await;

    let next = [
        send(&web, post("/reports")).await,
        send(&other, post("/reports")).await,
    ];
    let [one, another] = next.each_ref().map(retry_after);
    assert!(one.abs_diff(another) <= 1, "{one} s and {another} s");
    assert!(one >= JOB_TIME.as_secs(), "{one} s");
    for answer in &next {
        assert!(answer.json().get("estimatedFinishAt").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_process_learns_from_the_ends_it_reads() {
    let nats = or_skip!(Deployment::start(options()));
    let web = nats.jobs().await;
    let work_here = inner(async |_| {
        sleep(JOB_TIME).await;
        ok("done")
    });
    work(&web, work_here.clone());
    let web = layered(&web, work_here.clone());
    let mut accepted = Vec::new();
    for _ in 0..20 {
        accepted.push(send(&web, post("/reports")).await);
    }
    for job in &accepted {
        wait_for_end(&web, job.location()).await;
    }

    let new = layered(&nats.jobs().await, work_here);
    for (reads, is_known) in [(1, false), (7, false), (20, true)] {
        for job in &accepted[..reads] {
            // Each read of a job after the first teaches nothing.
            wait_for_end(&new, job.location()).await;
        }
        let next = send(&new, post("/reports")).await;
        let is_estimated = next.json().get("estimatedFinishAt").is_some();
        assert_eq!(is_estimated, is_known, "after {reads} jobs");
    }
}
