//! The layer around a service whose calls the test controls.

use std::{
    convert::Infallible,
    panic::resume_unwind,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::{sync::mpsc, task::yield_now, time::sleep};
use tower::{Layer, ServiceExt, service_fn};
use tower_accepted::{
    Accepted, JobHandle, Jobs, RequestBody, ResponseBody,
    store::{Budget, MemoryStore},
};

use crate::model::{LIMIT_BYTES, MAX_UNFINISHED};

pub(crate) const RETAIN_SECS: u64 = 60;
pub(crate) const TIMEOUT_SECS: u64 = 100;
pub(crate) const WAIT_SECS: u64 = 20;

/// The next step of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command {
    Progress(u8),
    Respond(u16, usize),
    Panic,
    BreakBody,
}

/// The calls in the order of their starts.
type Calls = Arc<Mutex<Vec<mpsc::UnboundedSender<Command>>>>;

type Inner = tower::util::BoxCloneSyncService<
    Request<RequestBody<Full<Bytes>>>,
    Response<CallBody>,
    Infallible,
>;

pub(crate) struct Site {
    pub(crate) jobs: Jobs,
    pub(crate) budget: Budget,
    service: Accepted<Inner>,
    calls: Calls,
}

/// A response of the layer, whose body has been read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Returns the id of the job that a document describes.
    pub(crate) fn id(&self) -> String {
        self.json()["id"].as_str().expect("an id").to_owned()
    }
}

/// A body of sevens, which may break.
#[derive(Debug)]
pub(crate) struct CallBody {
    left: usize,
    breaks: bool,
}

impl HttpBody for CallBody {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        if self.breaks {
            return Poll::Ready(Some(Err("broken")));
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let bytes = std::mem::take(&mut self.left);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![7; bytes])))))
    }
}

async fn call(mut commands: mpsc::UnboundedReceiver<Command>) -> Response<CallBody> {
    let job = JobHandle::current();
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            () = job.canceled() => None,
        };
        let (status, left, breaks) = match command {
            Some(Command::Progress(percent)) => {
                job.progress(f64::from(percent) / 100.0);
                continue;
            }
            // Without the hook, whose backtrace would count as memory.
            Some(Command::Panic) => resume_unwind(Box::new("asked to")),
            Some(Command::Respond(status, left)) => (status, left, false),
            Some(Command::BreakBody) => (200, 0, true),
            None => (200, 0, false),
        };
        let response = Response::builder().status(status);
        return response
            .body(CallBody { left, breaks })
            .expect("a response");
    }
}

impl Site {
    pub(crate) fn new() -> Self {
        let budget = Budget::new(LIMIT_BYTES);
        let store = MemoryStore::new(Duration::from_secs(RETAIN_SECS), budget.clone());
        let jobs = Jobs::builder()
            .store(store)
            .max_unfinished(MAX_UNFINISHED)
            .job_timeout(Duration::from_secs(TIMEOUT_SECS))
            .replay_timeout(Duration::from_secs(3600))
            .build();
        let calls = Calls::default();
        let inner = service_fn({
            let calls = calls.clone();
            move |request: Request<RequestBody<Full<Bytes>>>| {
                drop(request);
                let (commander, commands) = mpsc::unbounded_channel();
                calls.lock().expect("no panic").push(commander);
                let response = call(commands);
                async { Ok::<_, Infallible>(response.await) }
            }
        });
        let service = jobs.layer().layer(Inner::new(inner));
        Self {
            jobs,
            budget,
            service,
            calls,
        }
    }

    /// Sends a command to the call of job `index`.
    pub(crate) fn command(&self, index: usize, command: Command) {
        let calls = self.calls.lock().expect("no panic");
        // A canceled job has no call to get it.
        let _ = calls[index].send(command);
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.lock().expect("no panic").len()
    }

    pub(crate) async fn begin(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Response<ResponseBody<CallBody>> {
        let service = self.service.clone();
        service.oneshot(request).await.expect("infallible")
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let response = self.begin(request).await;
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body");
        let body = body.to_bytes();
        Answer { status, body }
    }

    /// Lets a second pass, and all tasks run.
    pub(crate) async fn tick(&self) {
        sleep(Duration::from_secs(1)).await;
        settle().await;
    }
}

/// Lets all tasks run until each of them waits.
pub(crate) async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

pub(crate) fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path)
}

pub(crate) fn empty(request: http::request::Builder) -> Request<Full<Bytes>> {
    request.body(Full::default()).expect("a request")
}
