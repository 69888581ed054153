//! Clients that disconnect from a running call, or while they wait at the monitor.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use tokio::{join, sync::Semaphore, task::yield_now};
use tower_accepted::{AcceptedLayer, Jobs, When};

use crate::support::*;

on_every_stack!(
    job_outlives_its_connection,
    waiting_client_may_disconnect,
    inline_call_is_dropped_on_disconnect,
    inline_call_is_dropped_on_stream_reset,
);

/// Answers a request for each permit of `gate`.
fn gated(
    gate: &Arc<Semaphore>,
) -> impl Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Clone + use<> {
    let gate = gate.clone();
    move |_| {
        let gate = gate.clone();
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            Response::new(Body::from("in the end"))
        })
    }
}

async fn job_outlives_its_connection(stack: Stack) {
    for when in [When::Always, When::After(Duration::from_millis(5))] {
        let gate = Arc::new(Semaphore::new(0));
        let layer = AcceptedLayer::new().when(when);
        let mut client = stack.start(layer, gated(&gate)).await;
        let mut other = client.another().await;
        let accepted = client.send(post("/")).await;
        client.closer().close();
        client.closed().await;
        gate.add_permits(1);
        assert_eq!(other.ended(&accepted).await["status"], "succeeded");
        assert_eq!(other.result(&accepted).await.text(), "in the end");
    }
}

async fn waiting_client_may_disconnect(stack: Stack) {
    let gate = Arc::new(Semaphore::new(0));
    let mut client = stack.start(AcceptedLayer::new(), gated(&gate)).await;
    let mut patient = client.another().await;
    let accepted = client.send(post("/")).await;
    let wait = |path: &str| {
        let mut request = get(path);
        let forever = "wait=3600".parse().unwrap();
        request.headers_mut().insert("prefer", forever);
        request
    };
    let at = format!("{}/result", accepted.location());
    let closer = client.closer();
    let (cut, result, ()) = join!(
        client.start(wait(accepted.location())),
        patient.send(wait(&at)),
        async {
            // Long enough for both to wait. The answers are the same if it is not.
            for _ in 0..100 {
                yield_now().await;
            }
            closer.close();
            gate.add_permits(1);
        }
    );
    if let Ok(response) = cut {
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(
        (result.status, result.text()),
        (StatusCode::OK, "in the end")
    );
}

async fn inline_call_is_dropped_on_disconnect(stack: Stack) {
    let jobs = Jobs::new();
    let (inner, calls, drops) = hanging();
    let mut client = stack.start(jobs.layer().when(AFTER_AN_HOUR), inner).await;
    let closer = client.closer();
    let disconnect = async {
        until(|| calls.count() == 1).await;
        assert_eq!(jobs.unfinished(), 1);
        closer.close();
    };
    let (answer, ()) = join!(client.start(post("/")), disconnect);
    answer.expect_err("disconnected");
    until(|| drops.count() == 1).await;
    nothing_is_left(&jobs).await;
}

async fn inline_call_is_dropped_on_stream_reset(stack: Stack) {
    let jobs = Jobs::new();
    let (inner, calls, drops) = hanging();
    let mut client = stack.start(jobs.layer().when(AFTER_AN_HOUR), inner).await;
    tokio::select! {
        biased;
        _ = client.start(post("/")) => panic!("the service never answers"),
        () = until(|| calls.count() == 1) => {}
    }
    until(|| drops.count() == 1).await;
    nothing_is_left(&jobs).await;
    if stack.protocol == Protocol::Http2 {
        // The reset ends only one stream.
        let (answer, ()) = join!(client.start(get("/jobs/x")), async {});
        assert_eq!(answer.unwrap().status(), StatusCode::NOT_FOUND);
    }
}
