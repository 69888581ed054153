//! Request bodies that are too large, stall, break off or have the wrong length.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::{join, net::TcpStream};
use tower::Layer;
use tower_accepted::{Jobs, When};

use crate::support::*;

on_every_stack!(
    disconnect_during_upload_leaves_nothing,
    broken_upload_leaves_nothing,
    stalled_upload_gets_408,
    body_over_the_limit_gets_413,
);

on_every_server!(upload_reset_without_error_leaves_nothing,);

async fn disconnect_during_upload_leaves_nothing(stack: Stack) {
    let jobs = Jobs::new();
    let (inner, calls, _) = hanging();
    for when in [When::Always, AFTER_AN_HOUR] {
        let mut client = stack.start(jobs.layer().when(when), inner.clone()).await;
        let closer = client.closer();
        let (frames, body) = channel();
        frames
            .send(Ok(Bytes::from_static(b"the first half")))
            .unwrap();
        let disconnect = async {
            until_charged(&jobs, 14).await;
            assert_eq!(jobs.unfinished(), 1);
            closer.close();
        };
        let (answer, ()) = join!(client.start(post("/").map(|_| body)), disconnect);
        answer.expect_err("disconnected");
        nothing_is_left(&jobs).await;
        assert_eq!(calls.count(), 0);
    }
}

async fn broken_upload_leaves_nothing(stack: Stack) {
    let jobs = Jobs::new();
    let (inner, calls, _) = hanging();
    for when in [When::Always, AFTER_AN_HOUR] {
        let mut client = stack.start(jobs.layer().when(when), inner.clone()).await;
        let (frames, body) = channel();
        frames
            .send(Ok(Bytes::from_static(b"the first half")))
            .unwrap();
        let break_off = async {
            until_charged(&jobs, 14).await;
            frames.send(Err(Failed)).unwrap();
        };
        let (answer, ()) = join!(client.start(post("/").map(|_| body)), break_off);
        answer.expect_err("a broken request");
        nothing_is_left(&jobs).await;
        assert_eq!(calls.count(), 0);
    }
}

async fn stalled_upload_gets_408(stack: Stack) {
    let jobs = Jobs::builder()
        .body_timeout(Duration::from_millis(20))
        .build();
    let (inner, calls, _) = hanging();
    let mut client = stack.start(jobs.layer(), inner).await;
    let (frames, body) = channel();
    frames
        .send(Ok(Bytes::from_static(b"the first half")))
        .unwrap();
    let answer = client.send(post("/").map(|_| body)).await;
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    nothing_is_left(&jobs).await;
    assert_eq!(calls.count(), 0);
}

async fn body_over_the_limit_gets_413(stack: Stack) {
    let jobs = Jobs::builder().max_body(50).build();
    let (inner, calls, _) = hanging();
    let client = stack.start(jobs.layer(), inner).await;
    let declared = Body::from(vec![0; 51]);
    let (frames, undeclared) = channel();
    for frame in [26, 25] {
        frames.send(Ok(vec![0; frame].into())).unwrap();
    }
    for body in [declared, undeclared] {
        let answer = client.another().await.send(post("/").map(|_| body)).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        nothing_is_left(&jobs).await;
    }
    assert_eq!(calls.count(), 0);
}

async fn upload_reset_without_error_leaves_nothing(server: Server) {
    let (inner, calls, _) = hanging();
    for declared in [true, false] {
        for when in [When::Always, AFTER_AN_HOUR] {
            let jobs = Jobs::new();
            let address = server.serve(jobs.layer().when(when), inner.clone()).await;
            let stream = TcpStream::connect(address).await.unwrap();
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let mut request = Request::post(format!("http://{address}/"));
            if declared {
                request = request.header("content-length", "28");
            }
            let mut sender = sender.ready().await.unwrap();
            let (answer, mut body) = sender
                .send_request(request.body(()).unwrap(), false)
                .unwrap();
            body.send_data(Bytes::from_static(b"the first half"), false)
                .unwrap();
            until_charged(&jobs, 14).await;
            body.send_reset(h2::Reason::NO_ERROR);
            drop(answer);
            nothing_is_left(&jobs).await;
            assert_eq!(calls.count(), 0);
        }
    }
}

#[tokio::test]
async fn body_shorter_than_declared_gets_400() {
    let jobs = Jobs::new();
    let service = jobs.layer().layer(inner(async |_| ok("")));
    let body = Body::new(Declares(20, Body::from("14 bytes of 20")));
    let answer = send(&service, post("/").map(|_| body)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    nothing_is_left(&jobs).await;
}

/// A body that declares another length than it has.
struct Declares(u64, Body);

impl http_body::Body for Declares {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.1).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}
