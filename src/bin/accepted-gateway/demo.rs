//! A slow server to try the gateway with, where no other was given.

use std::{io, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::{get, post},
};
use futures_util::stream;
use http::uri::Authority;
use jiff::Timestamp;
use tokio::{net::TcpListener, time::sleep};

/// Starts the server on a free port of this machine. It knows nothing of 202.
pub(crate) async fn start() -> io::Result<Authority> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let server = Router::new()
        .route("/report", post(report))
        .route("/broken", post(broken))
        .route("/echo", post(|body: String| async { body }))
        .route("/clock", get(clock));
    tokio::spawn(axum::serve(listener, server).into_future());
    address.parse().map_err(io::Error::other)
}

/// What to try, ready to be pasted: commands are indented, and words are not.
pub(crate) fn tour(gateway: &str, monitor: &str, needs_key: bool) -> String {
    let post = match needs_key {
        true => "-X POST -H \"Idempotency-Key: $(date +%s%N)\"",
        false => "-X POST",
    };
    format!(
        "
A report takes 5 seconds. Ask for one, and see the 202:

    curl -i {post} {gateway}/report

Or keep the address of its monitor, look until it is done, and fetch the report:

    job={gateway}{monitor}/$(curl -s {post} {gateway}/report | grep -o '\"id\":\"[^\"]*' | cut -c7-)
    while curl -s $job | grep -E 'queued|running'; do sleep 1; done
    curl -i $job/result

Or ask for another and cancel it:

    job={gateway}{monitor}/$(curl -s {post} {gateway}/report | grep -o '\"id\":\"[^\"]*' | cut -c7-)
    curl -i -X POST $job/cancel

What is quick is answered as ever; what fails is a result too (use /broken for /report above); and
what is only read passes through as it comes:

    curl -i {gateway}/echo -d 'quick'
    curl -N {gateway}/clock
"
    )
}

async fn report() -> impl IntoResponse {
    let mut rows = "page,rendered\n".to_owned();
    for page in 1..=5 {
        sleep(Duration::from_secs(1)).await;
        rows += &format!("{page},{:.3}\n", Timestamp::now());
    }
    ([(CONTENT_TYPE, "text/csv")], rows)
}

async fn broken() -> (StatusCode, &'static str) {
    sleep(Duration::from_secs(2)).await;
    (StatusCode::INTERNAL_SERVER_ERROR, "out of paper\n")
}

/// Tells the time each second, for ever.
async fn clock() -> Body {
    Body::from_stream(stream::unfold((), |()| async {
        let line = format!("{:.0}\n", Timestamp::now());
        sleep(Duration::from_secs(1)).await;
        Some((Ok::<_, io::Error>(line), ()))
    }))
}
