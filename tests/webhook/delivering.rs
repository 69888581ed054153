//! Webhooks on their way from a job's end to its receiver.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Bytes, extract::State, response::IntoResponse, routing::any};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::{net::TcpListener, sync::mpsc, task::AbortHandle, time::timeout};
use tower::{Layer, ServiceExt, service_fn};
use tower_accepted::{
    Jobs, When,
    webhook::{Secret, Target, VerifyKey, WebhookEvent, Webhooks, verify},
};

/// The time after which a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

type Body = http_body_util::Full<Bytes>;

/// A request that a receiver got.
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
    count: std::sync::atomic::AtomicUsize,
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
            count: Default::default(),
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
    let number = answers
        .count
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
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
    pub(crate) fn verified(&self, secret: &Secret) -> WebhookEvent {
        let keys = [VerifyKey::from(secret.clone())];
        verify(&self.headers, &self.body, &keys).expect("a valid signature")
    }
}

/// Returns webhooks to a receiver on this machine.
pub(crate) fn webhooks(secret: &Secret) -> Webhooks {
    Webhooks::new()
        .secret(secret.clone())
        .insecure_for_development()
}

/// Sends a request to a service behind the layer of `jobs`, which responds with 200.
pub(crate) async fn submit(jobs: &Jobs, headers: &[(&'static str, &str)]) -> Response<String> {
    let service = service_fn(|_| async {
        Ok::<_, std::convert::Infallible>(Response::new(Body::from("the report")))
    });
    submit_to(jobs, service, headers).await
}

pub(crate) async fn submit_to<S>(
    jobs: &Jobs,
    service: S,
    headers: &[(&'static str, &str)],
) -> Response<String>
where
    S: tower::Service<
            Request<tower_accepted::RequestBody<Body>>,
            Response = Response<Body>,
            Error = std::convert::Infallible,
        > + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let mut request = Request::post("/reports")
        .body(Body::default())
        .expect("a request");
    for (name, value) in headers {
        let value = value.parse().expect("a value");
        request.headers_mut().insert(*name, value);
    }
    let service = jobs.layer().when(When::Always).layer(service);
    let response = service.oneshot(request).await.expect("a response");
    let (head, body) = response.into_parts();
    let body = http_body_util::BodyExt::collect(body)
        .await
        .expect("a body");
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8");
    Response::from_parts(head, text)
}

#[tokio::test]
async fn end_of_a_job_reaches_its_receiver() {
    let mut receiver = Receiver::start(|_| StatusCode::NO_CONTENT).await;
    let secret = Secret::generate();
    let url = format!("{}/hook?token=s3cret", receiver.url);
    let webhooks = webhooks(&secret).targets(move |_| vec![Target::new(&url)]);
    let jobs = Jobs::builder().webhooks(webhooks).build();
    let accepted = submit(&jobs, &[]).await;
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);

    let received = receiver.next().await;
    assert_eq!(received.method, Method::POST);
    assert_eq!(received.path, "/hook?token=s3cret");
    assert_eq!(received.headers["content-type"], "application/json");
    let event = received.verified(&secret);
    assert_eq!(event.type_name, "job.succeeded");
    let location = accepted.headers()["location"].to_str().expect("ASCII");
    assert_eq!(event.data["self"], location);
    assert_eq!(event.status(), Some("succeeded"));
}
