//! A drain waits for the clients that a `Retry-After` has asked to come back.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};
use tower::{Layer, util::BoxCloneSyncService};
use tower_accepted::{Filter, Idempotency, JobHandle, Jobs, ResponseBody, When, store::Store};

use crate::{slow_store::SlowStore, support::*};

type TestService = BoxCloneSyncService<Request<Body>, Response<ResponseBody<Body>>, Failed>;

const LIMIT: Duration = Duration::from_secs(300);

/// The time that each job takes, in seconds.
const JOB_SECS: u64 = 20;

/// Creates a service whose jobs take [`JOB_SECS`], and lets the registry learn that.
///
/// Its `Retry-After` names the ends of their jobs to clients.
async fn predictable<St: Store>(jobs: &Jobs<St>) -> TestService {
    let service = jobs.layer().layer(inner(async |_| {
        sleep(Duration::from_secs(JOB_SECS)).await;
        ok("done")
    }));
    let accepted = join_all((0..8).map(|_| send(&service, post("/")))).await;
    for accepted in accepted {
        ended(&service, &accepted).await;
        send(&service, request("DELETE", accepted.location())).await;
    }
    BoxCloneSyncService::new(service)
}

/// Starts a drain. The task returns the seconds that it takes.
fn drain<St: Store>(jobs: &Jobs<St>) -> JoinHandle<f64> {
    let jobs = jobs.clone();
    tokio::spawn(async move {
        let start = Instant::now();
        assert_eq!(jobs.drain(LIMIT).await, 0);
        start.elapsed().as_secs_f64()
    })
}

fn retry_after(answer: &Answer) -> u64 {
    let seconds = answer.header("retry-after").expect("a Retry-After");
    seconds.parse().expect("whole seconds")
}

/// Comes back when `Retry-After` says, and returns the text of the result. Panics if the server has
/// closed its port by then.
async fn obey(service: TestService, accepted: Answer, is_closed: watch::Receiver<bool>) -> String {
    let mut answer = accepted.clone();
    while answer.header("retry-after").is_some() {
        sleep(Duration::from_secs(retry_after(&answer))).await;
        assert!(!*is_closed.borrow(), "the port is closed");
        answer = send(&service, get(accepted.location())).await;
    }
    // A client needs some time for each request.
    sleep(Duration::from_millis(200)).await;
    assert!(!*is_closed.borrow(), "the port is closed");
    result(&service, &accepted).await.text().to_owned()
}

#[tokio::test(start_paused = true)]
async fn clients_that_obey_get_all_results() {
    // The drain begins before the jobs have started, while they run, or after they have ended.
    for drained_after in [0, 10, JOB_SECS - 1, JOB_SECS, JOB_SECS + 1] {
        let jobs = Jobs::new();
        let service = predictable(&jobs).await;
        let (close, is_closed) = watch::channel(false);
        let mut clients = JoinSet::new();
        for age in 0..3 {
            let accepted = send(&service, post("/")).await;
            clients.spawn(obey(service.clone(), accepted, is_closed.clone()));
            sleep(Duration::from_secs(age)).await;
        }
        sleep(Duration::from_secs(drained_after)).await;
        assert_eq!(jobs.drain(LIMIT).await, 0);
        close.send(true).unwrap();
        while let Some(text) = clients.join_next().await {
            assert_eq!(text.unwrap(), "done", "{drained_after}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn drain_ends_with_the_last_read_or_delete() {
    let jobs = Jobs::new();
    let service = predictable(&jobs).await;
    let accepted = [
        send(&service, post("/")).await,
        send(&service, post("/")).await,
    ];
    assert!(retry_after(&accepted[0]) >= JOB_SECS);
    let drain = drain(&jobs);
    for accepted in &accepted {
        let waits = with(get(accepted.location()), &[("prefer", "wait=40")]);
        assert_eq!(send(&service, waits).await.json()["status"], "succeeded");
    }
    assert_eq!(result(&service, &accepted[0]).await.text(), "done");
    sleep(Duration::from_millis(500)).await;
    assert!(!drain.is_finished());
    send(&service, request("DELETE", accepted[1].location())).await;
    let seconds = drain.await.unwrap();
    assert!((20.0..21.0).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn drain_does_not_wait_for_a_client_that_is_late() {
    let jobs = Jobs::new();
    let service = predictable(&jobs).await;
    let told = retry_after(&send(&service, post("/")).await);
    let seconds = drain(&jobs).await.unwrap();
    let expected = told as f64 + 1.0;
    assert!((expected..expected + 0.2).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn drain_ends_at_its_timeout_whoever_is_awaited() {
    let jobs = Jobs::new();
    let service = predictable(&jobs).await;
    send(&service, post("/")).await;
    sleep(Duration::from_secs(JOB_SECS - 5)).await;
    let start = Instant::now();
    assert_eq!(jobs.drain(Duration::from_secs(6)).await, 0);
    assert_eq!(start.elapsed().as_secs(), 6);
}

#[tokio::test(start_paused = true)]
async fn clients_are_told_to_come_back_soon_in_a_drain() {
    let jobs = Jobs::new();
    let service = predictable(&jobs).await;
    let accepted = send(&service, post("/")).await;
    assert!(retry_after(&accepted) > 10);
    let drain = drain(&jobs);
    sleep(Duration::from_millis(1)).await;
    let monitor = accepted.location();
    for request in [
        get(monitor),
        get(&format!("{monitor}/result")),
        with(get(&format!("{monitor}/stream")), &[("prefer", "wait=0")]),
        post("/"),
    ] {
        assert_eq!(retry_after(&send(&service, request).await), 1);
    }
    let page = with(get(monitor), &[("accept", "text/html")]);
    let page = send(&service, page).await;
    assert!(page.text().contains("http-equiv=\"refresh\" content=\"1\""));
    drain.abort();
}

#[tokio::test(start_paused = true)]
async fn connected_client_can_fetch_the_result() {
    let jobs = Jobs::new();
    let service = jobs.layer().layer(inner(async |_| {
        sleep(Duration::from_secs(JOB_SECS)).await;
        ok("done")
    }));
    let accepted = send(&service, post("/")).await;
    let drain = drain(&jobs);
    let events = format!("{}/events", accepted.location());
    let events = send(&service, get(&events)).await;
    assert!(events.text().contains("\"succeeded\""));
    sleep(Duration::from_millis(500)).await;
    assert!(!drain.is_finished());
    assert_eq!(result(&service, &accepted).await.text(), "done");
    let seconds = drain.await.unwrap();
    assert!((20.5..21.0).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn readers_of_streams_are_done_at_the_end() {
    let jobs = Jobs::new();
    let service = jobs.layer().when(When::Streamed).layer(inner(async |_| {
        sleep(Duration::from_secs(JOB_SECS)).await;
        ok("done")
    }));
    let submitter = tokio::spawn({
        let service = service.clone();
        async move { send(&service, post("/")).await }
    });
    sleep(Duration::from_secs(1)).await;
    let drain = drain(&jobs);
    assert_eq!(submitter.await.unwrap().text(), "done");
    let seconds = drain.await.unwrap();
    assert!((19.0..19.5).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn document_of_a_failed_job_is_all_there_is() {
    let jobs = Jobs::new();
    let service = jobs.layer().layer(inner(async |_| {
        JobHandle::current();
        sleep(Duration::from_secs(JOB_SECS)).await;
        Err::<Response<Body>, _>(Failed)
    }));
    let accepted = send(&service, post("/")).await;
    let drain = drain(&jobs);
    assert_eq!(ended(&service, &accepted).await["status"], "failed");
    let seconds = drain.await.unwrap();
    assert!((20.0..22.0).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn part_of_a_result_is_not_the_whole() {
    let jobs = Jobs::new();
    let service = predictable(&jobs).await;
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_millis(JOB_SECS * 1_000 + 100)).await;
    let path = format!("{}/result", accepted.location());
    let part = with(get(&path), &[("range", "bytes=0-1")]);
    assert_eq!(
        send(&service, part).await.status,
        StatusCode::PARTIAL_CONTENT
    );
    send(&service, request("HEAD", &path)).await;
    let drain = drain(&jobs);
    sleep(Duration::from_millis(500)).await;
    assert!(!drain.is_finished());
    assert_eq!(result(&service, &accepted).await.text(), "done");
    assert!(drain.await.unwrap() < 1.0);
}

#[tokio::test(start_paused = true)]
async fn durable_store_keeps_results_for_the_next_process() {
    let jobs = Jobs::builder().store(SlowStore::durable()).build();
    let service = predictable(&jobs).await;
    send(&service, post("/")).await;
    let seconds = drain(&jobs).await.unwrap();
    assert!((20.0..20.2).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn client_that_is_refused_a_repeat_may_come_back() {
    let jobs = Jobs::new();
    let strict = Idempotency::new().strict(true);
    let service = jobs.layer().idempotency(strict).layer(inner(async |_| {
        sleep(Duration::from_secs(1)).await;
        ok("done")
    }));
    let keyed = || with(post("/"), &[("idempotency-key", "key")]);
    // A client that has lost its connection does not know the job.
    send(&service, keyed()).await;
    let refused = send(&service, keyed()).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let comes_back = retry_after(&refused) as f64;
    assert!(drain(&jobs).await.unwrap() >= comes_back);
}

#[tokio::test(start_paused = true)]
async fn job_without_output_is_over_for_its_submitter() {
    let broken = inner(async |_| -> Result<Response<Body>, Failed> {
        sleep(Duration::from_secs(1)).await;
        panic!("broken")
    });
    for reads_stream in [false, true] {
        let jobs = Jobs::new();
        let service = jobs.layer().when(When::Streamed).layer(broken.clone());
        let sending = tokio::spawn({
            let service = service.clone();
            async move { send(&service, post("/")).await }
        });
        sleep(Duration::from_millis(500)).await;
        let job = jobs.list(&Filter::new()).await.unwrap().jobs.pop().unwrap();
        let monitor = format!("/jobs/{}", job.id);
        if reads_stream {
            // A submitter may leave.
            sending.abort();
            let stream = send(&service, get(&format!("{monitor}/stream"))).await;
            assert_eq!(stream.status, StatusCode::INTERNAL_SERVER_ERROR);
        } else {
            assert_eq!(
                sending.await.unwrap().status,
                StatusCode::INTERNAL_SERVER_ERROR
            );
        }
        assert_eq!(drain(&jobs).await.unwrap(), 0.0);
    }
}
