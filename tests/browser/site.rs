//! A site with one slow form, whose handler obeys the test and runs one job at a time.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{Html, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
};
use tower::{ServiceBuilder, limit::GlobalConcurrencyLimitLayer};
use tower_accepted::{JobHandle, Jobs};

pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    commands: mpsc::UnboundedSender<Command>,
    counts: Arc<Counts>,
}

/// A command to the slow handler.
enum Command {
    Report(f64, String),
    Title(String),
    Answer(Response),
}

#[derive(Default)]
struct Counts {
    posts: AtomicUsize,
    streams: AtomicUsize,
    outputs: AtomicUsize,
    open_outputs: AtomicUsize,
}

const FORM: &str = "<!doctype html><html lang=en><title>A form</title>\
    <form method=post action=/reports><button>Send</button></form>";

impl Site {
    pub(crate) async fn start() -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let counts = Arc::new(Counts::default());
        let app = Router::new()
            .route("/reports", post(work))
            .with_state(receiver)
            .layer(
                ServiceBuilder::new()
                    .layer(Jobs::new().layer())
                    .layer(GlobalConcurrencyLimitLayer::new(1)),
            )
            // Outside the limit, so that the form is served while a job runs.
            .route("/", get(async || Html(FORM)))
            .layer(middleware::from_fn_with_state(counts.clone(), count));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            address,
            commands,
            counts,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Makes the handler report progress.
    pub(crate) fn report(&self, progress: f64, message: &str) {
        self.send(Command::Report(progress, message.to_owned()));
    }

    /// Makes the handler set the title of its job.
    pub(crate) fn title(&self, title: &str) {
        self.send(Command::Title(title.to_owned()));
    }

    /// Makes the handler answer.
    pub(crate) fn answer(&self, status: u16, html: &'static str) {
        let answer = Response::builder()
            .status(status)
            .header("content-type", "text/html; charset=utf-8");
        self.send(Command::Answer(
            answer.body(Body::from(html)).expect("an answer"),
        ));
    }

    /// Makes the handler answer with a body that the test sends. Dropping the sender ends the body.
    pub(crate) fn stream(&self, content_type: &str) -> mpsc::UnboundedSender<io::Result<Bytes>> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let body = Body::from_stream(stream::poll_fn(move |cx| receiver.poll_recv(cx)));
        let answer = Response::builder().header("content-type", content_type);
        self.send(Command::Answer(answer.body(body).expect("an answer")));
        sender
    }

    fn send(&self, command: Command) {
        assert!(
            self.commands.send(command).is_ok(),
            "the handler is running"
        );
    }

    /// Returns the number of submitted forms.
    pub(crate) fn posts(&self) -> usize {
        self.counts.posts.load(Ordering::SeqCst)
    }

    /// Returns the number of requests for event streams.
    pub(crate) fn streams(&self) -> usize {
        self.counts.streams.load(Ordering::SeqCst)
    }

    /// Returns the number of responses that streamed an output.
    pub(crate) fn outputs(&self) -> usize {
        self.counts.outputs.load(Ordering::SeqCst)
    }

    /// Returns the number of those that the browser has not closed.
    pub(crate) fn open_outputs(&self) -> usize {
        self.counts.open_outputs.load(Ordering::SeqCst)
    }
}

async fn work(State(receiver): State<Arc<Mutex<mpsc::UnboundedReceiver<Command>>>>) -> Response {
    let job = JobHandle::current();
    let mut receiver = receiver.lock().await;
    loop {
        match receiver.recv().await.expect("the test is running") {
            Command::Report(progress, message) => {
                job.progress(progress);
                job.message(message);
            }
            Command::Title(title) => job.title(title),
            Command::Answer(response) => return response,
        }
    }
}

async fn count(State(counts): State<Arc<Counts>>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/reports" {
        counts.posts.fetch_add(1, Ordering::SeqCst);
    }
    if request.uri().path().ends_with("/events") {
        counts.streams.fetch_add(1, Ordering::SeqCst);
    }
    let is_stream = request.uri().path().ends_with("/stream");
    let response = next.run(request).await;
    if !is_stream || !response.headers().contains_key("asyncresult") {
        return response;
    }
    counts.outputs.fetch_add(1, Ordering::SeqCst);
    counts.open_outputs.fetch_add(1, Ordering::SeqCst);
    let open = OpenOutput(counts);
    response.map(|body| {
        let frames = body.into_data_stream();
        Body::from_stream(frames.inspect(move |_| {
            let _ = &open;
        }))
    })
}

/// The body of a response that streams an output.
struct OpenOutput(Arc<Counts>);

impl Drop for OpenOutput {
    fn drop(&mut self) {
        self.0.open_outputs.fetch_sub(1, Ordering::SeqCst);
    }
}
