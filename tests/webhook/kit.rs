//! Receivers of webhooks, and a service whose jobs notify them.

use std::{
    convert::Infallible,
    future::pending,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    response::IntoResponse,
    routing::any,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tower::{Layer, service_fn, util::BoxCloneService};
use tower_accepted::{
    Jobs, RequestBody, When,
    webhook::{Secret, Target, Verifier, VerifyKey, WebhookEvent, Webhooks},
};

use crate::layered::{Answer, get, post, send, with};

/// The time after which a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A delay that does not end during a test.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// A delay that ends at once.
pub(crate) const SHORT: Duration = Duration::from_millis(10);

/// A request that a receiver got.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A receiver of webhooks on a free port.
pub(crate) struct Receiver {
    pub(crate) url: String,
    received: mpsc::UnboundedReceiver<Received>,
    server: AbortHandle,
}

struct Answers {
    received: mpsc::UnboundedSender<Received>,
    answer: Box<dyn Fn(usize) -> axum::response::Response + Send + Sync>,
    count: AtomicUsize,
}

impl Receiver {
    /// Starts a receiver. `answer` returns the response to the request with this number.
    pub(crate) async fn start<R: IntoResponse>(
        answer: impl Fn(usize) -> R + Send + Sync + 'static,
    ) -> Self {
        let (sender, received) = mpsc::unbounded_channel();
        let answers = Arc::new(Answers {
            received: sender,
            answer: Box::new(move |number| answer(number).into_response()),
            count: AtomicUsize::new(0),
        });
        let app = Router::new().fallback(any(receive)).with_state(answers);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            url,
            received,
            server: server.abort_handle(),
        }
    }

    /// Starts a receiver that takes each webhook.
    pub(crate) async fn taking() -> Self {
        Self::start(|_| StatusCode::NO_CONTENT).await
    }

    pub(crate) async fn next(&mut self) -> Received {
        let received = timeout(PATIENCE, self.received.recv()).await;
        received.expect("in time").expect("the receiver runs")
    }

    /// Returns `true` if nothing is left that the receiver got.
    pub(crate) fn is_idle(&mut self) -> bool {
        self.received.try_recv().is_err()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(
    State(answers): State<Arc<Answers>>,
    method: Method,
    uri: http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    // Only counts.
    let number = answers.count.fetch_add(1, Ordering::Relaxed);
    let received = Received {
        method,
        path: uri.to_string(),
        headers,
        body,
    };
    let _ = answers.received.send(received);
    (answers.answer)(number)
}

impl Received {
    pub(crate) fn field(&self, name: &str) -> &str {
        let value = self.headers.get(name).expect(name);
        value.to_str().expect("ASCII")
    }

    pub(crate) fn event(&self, keys: &[VerifyKey]) -> WebhookEvent {
        let verifier = Verifier::new(keys.iter().cloned());
        let event = verifier.verify(&self.headers, &self.body);
        event.expect("a valid signature")
    }

    pub(crate) fn verified(&self, secret: &Secret) -> WebhookEvent {
        self.event(&[secret.clone().into()])
    }
}

/// A receiver that treats each connection in its own way.
pub(crate) struct RawReceiver {
    pub(crate) port: u16,
    /// The number of connections so far.
    pub(crate) connections: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl RawReceiver {
    pub(crate) async fn start<F: Future<Output = io::Result<()>> + Send + 'static>(
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let task = tokio::spawn(async move {
            // Ends the connections with the receiver.
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                serving.spawn(serve(stream));
            }
        });
        Self {
            port,
            connections,
            task: task.abort_handle(),
        }
    }

    /// Starts a receiver that never answers.
    pub(crate) async fn hanging() -> Self {
        Self::start(async |stream| {
            let _stream = stream;
            pending().await
        })
        .await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for RawReceiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns webhooks to receivers on this machine.
pub(crate) fn webhooks(secret: &Secret) -> Webhooks {
    Webhooks::new()
        .secret(secret.clone())
        .insecure_for_development()
        .retry_delays([])
}

/// Returns webhooks that notify these targets.
pub(crate) fn notifying(secret: &Secret, targets: impl Into<Vec<Target>>) -> Webhooks {
    let targets = targets.into();
    webhooks(secret).targets(move |_| targets.clone())
}

/// A registry in front of a service with some paths.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) jobs: Jobs,
    /// Ends a call of `/gated`.
    pub(crate) gate: Arc<Notify>,
    service: BoxCloneService<Request<Body>, Response<Body>, Infallible>,
}

impl Site {
    pub(crate) fn new(jobs: Jobs) -> Self {
        Self::with_policy(jobs, When::Always)
    }

    pub(crate) fn notifying(webhooks: Webhooks) -> Self {
        Self::new(Jobs::builder().webhooks(webhooks).build())
    }

    pub(crate) fn with_policy(jobs: Jobs, when: When) -> Self {
        let gate = Arc::new(Notify::new());
        let of_call = gate.clone();
        let inner = service_fn(move |request: Request<RequestBody<Body>>| {
            let gate = of_call.clone();
            async move { Ok::<_, Infallible>(respond(request.uri().path(), &gate).await) }
        });
        let layer = jobs.layer().when(when).idempotency(Default::default());
        let service = layer.layer(inner);
        let service = tower::ServiceExt::map_response(service, |response: Response<_>| {
            response.map(Body::new)
        });
        Self {
            jobs,
            gate,
            service: BoxCloneService::new(service),
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.service, request).await
    }

    /// Waits until a job has ended, and returns its document.
    pub(crate) async fn ended(&self, accepted: &Answer) -> Value {
        let looking = async {
            loop {
                let job = self.send(get(accepted.location())).await.json();
                if job["finishedAt"].is_string() {
                    return job;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, looking).await.expect("in time")
    }

    /// Submits a request, which becomes a job.
    pub(crate) async fn submit(&self, path: &str) -> Answer {
        self.submit_with(path, &[]).await
    }

    pub(crate) async fn submit_with(&self, path: &str, fields: &[(&'static str, &str)]) -> Answer {
        let answer = self.send(with(post(path), fields)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        answer
    }

    /// Returns the callbacks of a job.
    pub(crate) async fn callbacks(&self, accepted: &Answer) -> Vec<Value> {
        let path = format!("{}/callbacks", accepted.location());
        let answer = self.send(get(&path)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let mut document = answer.json();
        let Value::Array(callbacks) = document["callbacks"].take() else {
            panic!("no list: {document}");
        };
        callbacks
    }

    /// Waits until the delivery to a job's only target has this state, and returns it.
    pub(crate) async fn delivery(&self, accepted: &Answer, state: &str) -> Value {
        self.delivery_when(accepted, |delivery| delivery["state"] == state)
            .await
    }

    /// Waits until the delivery to a job's only target meets a condition, and returns it.
    pub(crate) async fn delivery_when(
        &self,
        accepted: &Answer,
        is_met: impl Fn(&Value) -> bool,
    ) -> Value {
        let looking = async {
            loop {
                let callbacks = self.callbacks(accepted).await;
                assert_eq!(callbacks.len(), 1, "{callbacks:?}");
                let delivery = &callbacks[0]["delivery"];
                if is_met(delivery) {
                    return delivery.clone();
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, looking).await.expect("in time")
    }
}

async fn respond(path: &str, gate: &Notify) -> Response<Body> {
    let mut response = Response::new(Body::from("the report"));
    match path {
        "/broken" => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        "/megabyte" => *response.body_mut() = Body::from(vec![b'x'; 1 << 20]),
        "/gated" => gate.notified().await,
        "/never" => pending().await,
        _ => {}
    }
    response
}

/// Waits until a condition is met.
pub(crate) async fn until(expected: &str, is_met: impl Fn() -> bool) {
    let looking = async {
        while !is_met() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, looking).await.expect(expected);
}
