//! A server that notifies a client when its job has ended, and a receiver that verifies it.
//!
//! ```text
//! cargo run --features webhook --example notify [ADDRESS]
//! ```
//!
//! Without an address, the example submits a request to itself, waits for the webhook, prints what
//! has happened, and ends. With an address, such as 127.0.0.1:3000, it serves until Ctrl-C and
//! prints each webhook. It also prints the port of its receiver, for these commands:
//!
//! ```text
//! curl -i -X POST http://127.0.0.1:3000/reports \
//!     -H 'prefer: respond-async, callback; url="http://127.0.0.1:PORT/hooks"'
//! curl http://127.0.0.1:3000/jobs/ID/callbacks    # the state of the delivery
//! curl -i http://127.0.0.1:PORT/hooks -d '{}'     # without a signature: 400
//! ```

use std::{collections::HashSet, env, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{FromRef, FromRequest, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::mpsc, time::sleep};
use tower::BoxError;
use tower_accepted::{
    JobHandle, Jobs, When,
    store::DeliveryFilter,
    webhook::{Secret, Verifier, WebhookEvent, Webhooks},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Standard output has what the example prints.
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    // In production, both sides read it from a file.
    let secret = Secret::generate();
    let (receiver, events) = start_receiver(&secret).await?;
    let address = env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let server = listener.local_addr()?;

    // A client may name this receiver and no other.
    let webhooks = Webhooks::new()
        .secret(secret)
        .prefer_callback([receiver.to_string().parse()?])
        .insecure_for_development(); // plain HTTP, on this machine
    let jobs = Jobs::builder().webhooks(webhooks).try_build()?;
    let app = Router::new()
        .route("/reports", post(render_report))
        .layer(jobs.layer().when(When::After(Duration::from_millis(300))));

    if address.is_some() {
        println!("Listening on http://{server}, with a receiver at http://{receiver}/hooks");
        tokio::spawn(print_events(events));
        let stopped = async move {
            let _ = tokio::signal::ctrl_c().await; // in production, also SIGTERM
            jobs.drain(Duration::from_secs(30)).await;
        };
        let serving = axum::serve(listener, app).with_graceful_shutdown(stopped);
        return Ok(serving.await?);
    }
    tokio::spawn(async move { axum::serve(listener, app).await });
    tour(server, receiver, events, &jobs).await
}

/// A slow handler, which does not know about the webhooks.
async fn render_report() -> &'static str {
    for page in 1..=3 {
        sleep(Duration::from_millis(50)).await;
        JobHandle::current().message(format!("page {page} of 3"));
    }
    "the report"
}

/// Submits a request, waits for the webhook, and fetches the result that it names.
async fn tour(
    server: SocketAddr,
    receiver: SocketAddr,
    mut events: mpsc::UnboundedReceiver<WebhookEvent>,
    jobs: &Jobs,
) -> Result<(), BoxError> {
    let client = reqwest::Client::new();
    let callback = format!("respond-async, callback; url=\"http://{receiver}/hooks\"");
    let request = client.post(format!("http://{server}/reports"));
    let accepted = request.header("prefer", callback).send().await?;
    println!("Submitted the request");
    println!("  status              {}", accepted.status());
    println!(
        "  preference-applied  {}",
        field(&accepted, "preference-applied")
    );

    let event = events.recv().await.ok_or("the receiver has ended")?;
    println!("Received a webhook with a valid signature");
    println!("  type                {}", event.type_name);
    println!(
        "  message             {}",
        event.message().unwrap_or("none")
    );
    let result = event.resource_location().ok_or("a job without a result")?;
    let result = client
        .get(format!("http://{server}{result}"))
        .send()
        .await?;
    println!("  result              {}", result.text().await?);

    let url = format!("http://{receiver}/hooks");
    let forged = client.post(url).body("{}").send().await?;
    println!("Sent a webhook without a signature");
    println!("  status              {}", forged.status());
    println!("  reason              {}", forged.text().await?);

    // A drain waits until what is due has been sent.
    jobs.drain(Duration::from_secs(30)).await;
    let page = jobs.deliveries(&DeliveryFilter::new()).await?;
    println!("Looked at the deliveries");
    for delivery in page.deliveries {
        let (state, attempts) = (delivery.state.as_str(), delivery.attempts);
        println!("  {:18}  {state}, attempts: {attempts}", delivery.event);
    }
    Ok(())
}

fn field<'a>(response: &'a reqwest::Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or("none")
}

async fn print_events(mut events: mpsc::UnboundedReceiver<WebhookEvent>) {
    while let Some(event) = events.recv().await {
        println!(
            "{} of job {}",
            event.type_name,
            event.job_id().unwrap_or("?")
        );
    }
}

// --- The receiver: another program, which may be in any language. ------------------------------

/// A webhook that a trusted sender has signed.
///
/// It must be the last argument of a handler, since it reads the body. Other requests get 400.
struct Verified(WebhookEvent);

impl<S> FromRequest<S> for Verified
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let headers: HeaderMap = request.headers().clone();
        // The body as it was sent: the signature is of its bytes. axum limits it to 2 MB.
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(IntoResponse::into_response)?;
        match Verifier::from_ref(state).verify(&headers, &body) {
            Ok(event) => Ok(Self(event)),
            Err(error) => Err((StatusCode::BAD_REQUEST, error.to_string()).into_response()),
        }
    }
}

#[derive(Clone)]
struct Receiver {
    verifier: Verifier,
    /// The ids of handled events. A real receiver keeps them in its database.
    seen: Arc<Mutex<HashSet<String>>>,
    events: mpsc::UnboundedSender<WebhookEvent>,
}

impl FromRef<Receiver> for Verifier {
    fn from_ref(receiver: &Receiver) -> Self {
        receiver.verifier.clone()
    }
}

/// Answers soon, and leaves the work to another task.
async fn receive(State(receiver): State<Receiver>, Verified(event): Verified) -> StatusCode {
    // A delivery can be sent twice. Its id stays the same.
    let mut seen = receiver.seen.lock();
    if !seen.contains(&event.id) {
        let id = event.id.clone();
        if receiver.events.send(event).is_err() {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        // Remember the id only once the event is recorded.
        seen.insert(id);
    }
    StatusCode::NO_CONTENT
}

/// Starts the receiver on a free port. Returns its address, and the events that it gets.
async fn start_receiver(
    secret: &Secret,
) -> io::Result<(SocketAddr, mpsc::UnboundedReceiver<WebhookEvent>)> {
    let (sender, events) = mpsc::unbounded_channel();
    let app = Router::new()
        .route("/hooks", post(receive))
        .with_state(Receiver {
            verifier: Verifier::new([secret.clone()]),
            seen: Arc::default(),
            events: sender,
        });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok((address, events))
}
