//! A site with one slow form, as slow as the test wants it, and one worker.

use std::{
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
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
};
use tower::{ServiceBuilder, limit::GlobalConcurrencyLimitLayer};
use tower_accepted::{JobHandle, Jobs};

pub(crate) struct Site {
    address: SocketAddr,
    orders: mpsc::UnboundedSender<Order>,
    counts: Arc<Counts>,
}

/// What the slow handler is to do next.
enum Order {
    Say(f64, String),
    Answer(Response),
}

#[derive(Default)]
struct Counts {
    posts: AtomicUsize,
    streams: AtomicUsize,
}

const FORM: &str = "<!doctype html><html lang=en><title>A form</title>\
    <form method=post action=/reports><button>Send</button></form>";

impl Site {
    pub(crate) async fn start() -> Self {
        let (orders, ordered) = mpsc::unbounded_channel();
        let ordered = Arc::new(Mutex::new(ordered));
        let counts = Arc::new(Counts::default());
        let app = Router::new()
            .route("/reports", post(work))
            .with_state(ordered)
            .layer(
                ServiceBuilder::new()
                    .layer(Jobs::new().layer())
                    .layer(GlobalConcurrencyLimitLayer::new(1)),
            )
            // Outside, or the form itself would wait for its turn.
            .route("/", get(async || Html(FORM)))
            .layer(middleware::from_fn_with_state(counts.clone(), count));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            address,
            orders,
            counts,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Has the handler report its progress.
    pub(crate) fn say(&self, progress: f64, message: &str) {
        self.order(Order::Say(progress, message.to_owned()));
    }

    /// Has the handler answer.
    pub(crate) fn answer(&self, status: u16, html: &'static str) {
        let answer = Response::builder()
            .status(status)
            .header("content-type", "text/html; charset=utf-8");
        self.order(Order::Answer(
            answer.body(Body::from(html)).expect("an answer"),
        ));
    }

    fn order(&self, order: Order) {
        assert!(self.orders.send(order).is_ok(), "the site is up");
    }

    /// How many forms were posted.
    pub(crate) fn posts(&self) -> usize {
        self.counts.posts.load(Ordering::SeqCst)
    }

    /// How many streams of events were asked for.
    pub(crate) fn streams(&self) -> usize {
        self.counts.streams.load(Ordering::SeqCst)
    }
}

async fn work(State(ordered): State<Arc<Mutex<mpsc::UnboundedReceiver<Order>>>>) -> Response {
    let job = JobHandle::current();
    let mut ordered = ordered.lock().await;
    loop {
        match ordered.recv().await.expect("the test goes on") {
            Order::Say(progress, message) => {
                job.progress(progress);
                job.message(message);
            }
            Order::Answer(response) => return response,
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
    next.run(request).await
}
