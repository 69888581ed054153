//! The slow demo server that runs if `--upstream` is not set.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, uri::Authority};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use jiff::Timestamp;
use tokio::{
    net::TcpListener,
    time::{Interval, interval, sleep},
};
use tower_accepted::When;

use crate::listen;

/// Starts the server on a free local port. It knows nothing of 202.
pub(crate) async fn start() -> io::Result<Authority> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    listen::spawn_server(listener, usize::MAX, respond);
    address.parse().map_err(io::Error::other)
}

/// Returns commands to paste. They are indented; the text between them is not.
pub(crate) fn tour(gateway: &str, monitor: &str, when: When, needs_key: bool) -> String {
    let key = if needs_key {
        " -H \"Idempotency-Key: $(date +%s%N)\""
    } else {
        ""
    };
    let (prefer, fast) = match when {
        When::Preferred => (
            " -H 'Prefer: respond-async'",
            "A request without the preference gets an ordinary response",
        ),
        When::Streamed => (
            " -H 'Prefer: respond-async'",
            "A request without the preference is streamed, with a Link to its monitor",
        ),
        When::Always => ("", "A fast request is answered 202 too"),
        _ => ("", "A fast response stays an ordinary response"),
    };
    let post = format!("-X POST{key}{prefer}");
    format!(
        "
A report takes 5 seconds. Request one, and see the 202:

    curl -i {post} {gateway}/report

Or keep the address of its monitor, poll until the job is done, and fetch the report:

    job={gateway}{monitor}/$(curl -s {post} {gateway}/report | grep -o '\"id\":\"[^\"]*' | cut -c7-)
    while curl -s $job | grep -E 'queued|running'; do sleep 1; done
    curl -i $job/result

In a browser, that address is a page with a progress bar and a cancel button.

Or request another one and cancel it:

    job={gateway}{monitor}/$(curl -s {post} {gateway}/report | grep -o '\"id\":\"[^\"]*' | cut -c7-)
    curl -i -X POST $job/cancel

{fast}, and a GET streams through. An error is a result too:
try /broken instead of /report.

    curl -i{key} {gateway}/echo -d 'quick'
    curl -N {gateway}/clock
"
    )
}

async fn respond(request: Request<Incoming>) -> Response<Either<Full<Bytes>, ClockBody>> {
    let (head, body) = request.into_parts();
    let text = match (&head.method, head.uri.path()) {
        (&Method::POST, "/report") => return report().await.map(Either::Left),
        (&Method::GET, "/clock") => {
            let ticks = interval(Duration::from_secs(1));
            return Response::new(Either::Right(ClockBody(ticks)));
        }
        (&Method::POST, "/echo") => match body.collect().await {
            Ok(body) => (StatusCode::OK, body.to_bytes()),
            Err(_) => (StatusCode::BAD_REQUEST, Bytes::new()),
        },
        (&Method::POST, "/broken") => {
            sleep(Duration::from_secs(2)).await;
            let text = Bytes::from_static(b"out of paper\n");
            (StatusCode::INTERNAL_SERVER_ERROR, text)
        }
        _ => (StatusCode::NOT_FOUND, Bytes::new()),
    };
    let (status, text) = text;
    let mut response = Response::new(Either::Left(Full::new(text)));
    *response.status_mut() = status;
    response
}

async fn report() -> Response<Full<Bytes>> {
    let mut rows = "page,rendered\n".to_owned();
    for page in 1..=5 {
        sleep(Duration::from_secs(1)).await;
        rows += &format!("{page},{:.3}\n", Timestamp::now());
    }
    let mut response = Response::new(Full::from(rows));
    let csv = HeaderValue::from_static("text/csv");
    response.headers_mut().insert(header::CONTENT_TYPE, csv);
    response
}

/// An endless body with the current time in each second.
struct ClockBody(Interval);

impl Body for ClockBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.0.poll_tick(cx));
        let line = format!("{:.0}\n", Timestamp::now());
        Poll::Ready(Some(Ok(Frame::data(line.into()))))
    }
}
