//! A fake language model that answers with a stream of tokens, and a chat page that survives cuts.
//!
//! The model sends Server-Sent Events without ids, as many real ones do, and knows nothing of jobs.
//!
//! ```text
//! cargo run --release --example tokens                # optionally with an address to listen on
//! xdg-open http://127.0.0.1:8080/
//! ```
//!
//! Unplug the network while the answer comes in, or suspend the machine. The text goes on after its
//! last token. Without a browser:
//!
//! ```text
//! job=$(curl -sD- -o/dev/null -d prompt=Hello http://127.0.0.1:8080/chat |
//!     sed -n 's/^location: //p' | tr -d '\r')
//! curl -N "http://127.0.0.1:8080$job/stream"
//! ```

mod model;

use std::{convert::Infallible, error::Error, future, time::Duration};

use axum::{
    Form, Router,
    extract::State,
    response::{Html, Sse, sse::Event},
    routing::{get, post},
};
use clap::Parser;
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::{net::TcpListener, signal, time};
use tower_accepted::Jobs;

/// The time after which a disconnected `EventSource` connects again. A browser takes some seconds
/// by default.
const RETRY: Duration = Duration::from_millis(500);

/// Serves a chat with a fake language model
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// The address to listen on
    #[arg(default_value = "127.0.0.1:8080")]
    address: String,
    /// The time between two tokens, in milliseconds
    #[arg(long, default_value_t = 50)]
    interval_ms: u64,
    /// The number of tokens of an answer
    #[arg(long, default_value_t = 300)]
    tokens: usize,
}

/// A chat's message, as the form sends it.
#[derive(Deserialize)]
struct Message {
    prompt: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(&arguments.address).await?;
    println!("Listening on http://{}", listener.local_addr()?);

    let jobs = Jobs::new();
    let app = Router::new()
        .route("/chat", post(chat))
        .with_state(arguments)
        .layer(jobs.layer())
        .route("/", get(async || Html(include_str!("chat.html"))));
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            let _ = signal::ctrl_c().await;
            jobs.drain(Duration::from_secs(30)).await;
        })
        .await?;
    Ok(())
}

/// Answers a prompt token by token, in the format that many servers of models share.
async fn chat(
    State(arguments): State<Arguments>,
    Form(message): Form<Message>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut interval = time::interval(Duration::from_millis(arguments.interval_ms.max(1)));
    let tokens = model::answer(&message.prompt).take(arguments.tokens);
    let tokens = stream::iter(tokens).zip(stream::poll_fn(move |cx| {
        interval.poll_tick(cx).map(Some) // one token a tick
    }));
    let events = tokens.map(|(token, _)| {
        let chunk = json!({ "choices": [{ "delta": { "content": token } }] });
        Event::default().data(chunk.to_string())
    });
    let first = stream::once(future::ready(Event::default().retry(RETRY)));
    let last = stream::once(future::ready(Event::default().data("[DONE]")));
    Sse::new(first.chain(events).chain(last).map(Ok))
}
