//! Ends requests and responses with a body that is always ready.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Frame;
use tokio::task::{JoinHandle, yield_now};
use tower::{Layer, Service};
use tower_accepted::{Jobs, RequestBody};

use crate::support::*;

/// The number of frames after which a body was read for too long.
const MAX_FRAMES: usize = 1_000_000;

/// The frames that the bodies repeat.
const FRAMES: [&str; 2] = ["", "x"];

const TIMEOUT: Duration = Duration::from_secs(10);

/// A body that yields one frame again and again, and is never pending.
struct AlwaysReady {
    frame: Bytes,
    left: usize,
    _dropped: OnDrop,
}

impl AlwaysReady {
    fn new(frame: &'static str, dropped: &Counter) -> Self {
        Self {
            frame: Bytes::from_static(frame.as_bytes()),
            left: MAX_FRAMES,
            _dropped: OnDrop(dropped.clone()),
        }
    }
}

impl http_body::Body for AlwaysReady {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        self.left = self.left.checked_sub(1).expect("the body is not read on");
        Poll::Ready(Some(Ok(Frame::data(self.frame.clone()))))
    }
}

/// Advances the clock. While a task is always ready, the paused clock does not advance by itself.
async fn advance(duration: Duration) {
    tokio::time::advance(duration).await;
    run_other_tasks().await;
}

/// Runs the other tasks, and the timers that are due.
async fn run_other_tasks() {
    for _ in 0..10 {
        yield_now().await;
    }
}

/// Starts to send a request whose body is always ready.
async fn upload(jobs: &Jobs, frame: &'static str, dropped: &Counter) -> JoinHandle<Answer> {
    let service = jobs.layer().layer(inner(async |_| ok("called")));
    let request = post("/").map(|_| Body::new(AlwaysReady::new(frame, dropped)));
    let client = tokio::spawn(async move { send(&service, request).await });
    run_other_tasks().await;
    assert!(!client.is_finished());
    client
}

#[tokio::test(start_paused = true)]
async fn always_ready_request_meets_its_timeout() {
    for frame in FRAMES {
        let (dropped, jobs) = (
            Counter::default(),
            Jobs::builder().body_timeout(TIMEOUT).build(),
        );
        let client = upload(&jobs, frame, &dropped).await;
        advance(TIMEOUT).await;
        assert!(client.is_finished());
        let answer = client.await.unwrap();
        assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
        let problem = answer.json()["type"].as_str().unwrap().to_owned();
        assert!(problem.ends_with(":body-timeout"), "{problem}");
        assert_eq!((dropped.count(), jobs.unfinished()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn always_ready_request_ends_with_its_client() {
    for frame in FRAMES {
        let (dropped, jobs) = (Counter::default(), Jobs::new());
        let client = upload(&jobs, frame, &dropped).await;
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
        assert_eq!((dropped.count(), jobs.unfinished()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn always_ready_request_does_not_hold_up_a_drain() {
    for frame in FRAMES {
        let (dropped, jobs) = (
            Counter::default(),
            Jobs::builder().body_timeout(Duration::MAX).build(),
        );
        let client = upload(&jobs, frame, &dropped).await;
        let drain = tokio::spawn({
            let jobs = jobs.clone();
            async move { jobs.drain(TIMEOUT).await }
        });
        run_other_tasks().await;
        advance(TIMEOUT).await;
        // The server ends what is left. It is no job.
        assert_eq!(drain.await.unwrap(), 0);
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
        assert_eq!(dropped.count(), 1);
    }
}

/// Creates a service whose responses have a body that is always ready.
fn download(
    jobs: &Jobs,
    frame: &'static str,
    dropped: &Counter,
) -> impl Service<
    http::Request<Body>,
    Response = Response<tower_accepted::ResponseBody<AlwaysReady>>,
    Error = Failed,
    Future: Send,
> + Clone {
    let dropped = dropped.clone();
    jobs.layer()
        .layer(inner(move |_: http::Request<RequestBody<Body>>| {
            let body = AlwaysReady::new(frame, &dropped);
            async move { Ok(Response::new(body)) }
        }))
}

#[tokio::test(start_paused = true)]
async fn always_ready_response_meets_the_job_timeout() {
    for frame in FRAMES {
        let (dropped, jobs) = (
            Counter::default(),
            Jobs::builder().job_timeout(TIMEOUT).build(),
        );
        let service = download(&jobs, frame, &dropped);
        let accepted = send(&service, post("/")).await;
        run_other_tasks().await;
        let running = send(&service, get(accepted.location())).await;
        assert_eq!(running.json()["status"], "running");
        advance(TIMEOUT).await;
        assert_eq!((dropped.count(), jobs.unfinished()), (1, 0));
        let document = ended(&service, &accepted).await;
        assert_eq!(document["error"]["code"], "timeout");
    }
}

#[tokio::test(start_paused = true)]
async fn always_ready_response_ends_with_a_cancel() {
    for frame in FRAMES {
        let (dropped, jobs) = (Counter::default(), Jobs::new());
        let service = download(&jobs, frame, &dropped);
        let accepted = send(&service, post("/")).await;
        run_other_tasks().await;
        let cancel = post(&format!("{}/cancel", accepted.location()));
        let canceled = send(&service, cancel).await;
        assert_eq!(canceled.json()["status"], "canceled");
        run_other_tasks().await;
        assert_eq!((dropped.count(), jobs.unfinished()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn always_ready_response_ends_with_a_drain() {
    for frame in FRAMES {
        let (dropped, jobs) = (Counter::default(), Jobs::new());
        let service = download(&jobs, frame, &dropped);
        let accepted = send(&service, post("/")).await;
        let drain = tokio::spawn({
            let jobs = jobs.clone();
            async move { jobs.drain(TIMEOUT).await }
        });
        run_other_tasks().await;
        assert_eq!(jobs.unfinished(), 1);
        advance(TIMEOUT).await;
        assert!(drain.is_finished());
        assert_eq!(drain.await.unwrap(), 1);
        assert_eq!((dropped.count(), jobs.unfinished()), (1, 0));
        let document = ended(&service, &accepted).await;
        assert_eq!(document["error"]["code"], "shutdown");
    }
}
