//! Jobs after a restart, clean or by a crash.

use std::task::{Context, Poll};

use axum::{Router, routing::any};
use http::{HeaderMap, Request, Response, header};
use serde::{Deserialize, Serialize};
use tower::{Service, util::BoxCloneSyncService};
use tower_accepted::{RequestBody, store::sqlite::SqliteOptions};

use crate::{
    site::{
        Home, boxed, counting, end, hanging, keyed, large, options, quick, until, wait_for_end,
    },
    suites::routes::Inner,
    support::{Body, Counter, Failed, get, ok, post, request, send, with},
};

/// A service that is never ready, as one whose only permit is taken.
#[derive(Clone)]
struct NeverReady;

impl Service<Request<RequestBody<Body>>> for NeverReady {
    type Response = Response<Body>;
    type Error = Failed;
    type Future = std::future::Ready<Result<Response<Body>, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Pending
    }

    fn call(&mut self, _: Request<RequestBody<Body>>) -> Self::Future {
        unreachable!("it is never ready")
    }
}

fn never_ready() -> Inner {
    BoxCloneSyncService::new(NeverReady)
}

#[tokio::test]
async fn ended_job_replays_as_before() {
    let home = Home::new(options());
    let calls = Counter::default();
    let (document, result, location) = {
        let site = home.serve(counting(&calls, "the report")).await;
        let accepted = send(&site, keyed("once")).await;
        let location = accepted.location().to_owned();
        let document = wait_for_end(&site, &location).await;
        let result = send(&site, get(&format!("{location}/result"))).await;
        (document, result, location)
    };
    home.closed().await;
    let site = home.serve(counting(&calls, "another report")).await;
    let again = send(&site, get(&location)).await;
    assert_eq!(again.header("etag"), document.header("etag"));
    assert_eq!(again.json(), document.json());
    let replayed = send(&site, get(&format!("{location}/result"))).await;
    assert_eq!(replayed.header("etag"), result.header("etag"));
    assert_eq!(replayed.body, result.body);
    // The key joins after the restart too.
    let repeat = send(&site, keyed("once")).await;
    assert_eq!(repeat.location(), location);
    assert_eq!(repeat.header("idempotent-replayed"), Some("true"));
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn running_jobs_run_again_or_are_lost() {
    let home = Home::new(options());
    let calls = Counter::default();
    let site = home.serve(hanging(&calls)).await;
    let put = send(&site, request("PUT", "/it")).await;
    let key = send(&site, keyed("once")).await;
    let plain = send(&site, post("/it")).await;
    let large = send(&site, large("/it")).await;
    until(async || calls.count() == 4).await;
    // The process of the copy is dead.
    let crashed = home.crash();
    let again = Counter::default();
    let _worker = crashed.work(counting(&again, "done")).await;
    let site = crashed.serve(quick()).await;
    assert_eq!(end(&site, put.location()).await, "succeeded");
    assert_eq!(end(&site, key.location()).await, "succeeded");
    assert_eq!(end(&site, plain.location()).await, "lost");
    assert_eq!(end(&site, large.location()).await, "lost");
    assert_eq!(again.count(), 2);
    let repeat = send(&site, keyed("once")).await;
    assert_eq!(repeat.location(), key.location());
}

#[tokio::test]
async fn worker_may_have_the_layer_itself() {
    let home = Home::new(options());
    let calls = Counter::default();
    let site = home.serve(hanging(&calls)).await;
    let accepted = [
        send(&site, request("PUT", "/it")).await,
        send(&site, keyed("once")).await,
    ];
    until(async || calls.count() == 2).await;
    let crashed = home.crash();
    let jobs = crashed.jobs().await;
    // As in an application that gives its worker the complete router.
    let app = Router::new()
        .route("/it", any(async || "done"))
        .layer(jobs.layer());
    let worker = jobs.worker::<_, Body>(app);
    let worker = tokio::spawn(worker.run());
    let site = crashed.serve(quick()).await;
    for accepted in &accepted {
        assert_eq!(end(&site, accepted.location()).await, "succeeded");
        let result = format!("{}/result", accepted.location());
        assert_eq!(send(&site, get(&result)).await.text(), "done");
    }
    assert_eq!(crashed.number("SELECT count(*) FROM job"), 2);
    worker.abort();
}

#[tokio::test]
async fn job_that_never_started_runs() {
    let home = Home::new(options().attempts(1));
    let site = home.serve(never_ready()).await;
    let small = send(&site, post("/it")).await;
    let big = send(&site, large("/it")).await;
    let put = send(&site, request("PUT", "/it")).await;
    let key = send(&site, keyed("once")).await;
    let crashed = home.crash();
    let calls = Counter::default();
    let _worker = crashed.work(counting(&calls, "done")).await;
    let site = crashed.serve(quick()).await;
    for accepted in [small, big, put, key] {
        assert_eq!(end(&site, accepted.location()).await, "succeeded");
    }
    assert_eq!(calls.count(), 4);
}

#[tokio::test]
async fn request_that_kills_its_process_is_given_up() {
    let mut home = Home::new(options().attempts(3));
    let site = home.serve(hanging(&Counter::default())).await;
    let location = send(&site, request("PUT", "/deadly")).await;
    let location = location.location().to_owned();
    let mut runs = 1;
    loop {
        until(async || home.texts("SELECT status FROM job") == ["running"]).await;
        // All processes die.
        let crashed = home.crash();
        let calls = Counter::default();
        let _worker = crashed.work(hanging(&calls)).await;
        let site = crashed.serve(quick()).await;
        until(async || {
            let document = send(&site, get(&location)).await.json();
            calls.count() == 1 || document["status"] == "failed"
        })
        .await;
        if calls.count() == 0 {
            assert_eq!(end(&site, &location).await, "lost");
            break;
        }
        runs += 1;
        home = crashed;
    }
    assert_eq!(runs, 3);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User(String);

#[tokio::test]
async fn stored_request_has_what_the_options_say() {
    let options = |options: SqliteOptions| {
        let options = options.carry::<User>("user");
        options.edit_fields(|fields: &mut HeaderMap| {
            fields.remove(header::AUTHORIZATION);
        })
    };
    let home = Home::new(options(self::options()));
    let seen = Counter::default();
    let live = {
        let seen = seen.clone();
        boxed(move |request: Request<RequestBody<Body>>| {
            if request.headers().contains_key(header::AUTHORIZATION) {
                seen.up();
            }
            std::future::pending()
        })
    };
    let site = home.serve(live).await;
    let secret = with(
        request("PUT", "/it"),
        &[("authorization", "secret"), ("x-kept", "yes")],
    );
    let mut secret = secret;
    secret.extensions_mut().insert(User("me".to_owned()));
    let location = send(&site, secret).await.location().to_owned();
    // The live call has all fields.
    until(async || seen.count() == 1).await;
    let crashed = home.crash();
    let stored = boxed(|request: Request<RequestBody<Body>>| async move {
        let fields = request.headers();
        let is_right = !fields.contains_key(header::AUTHORIZATION)
            && fields.contains_key("x-kept")
            && request.extensions().get() == Some(&User("me".to_owned()));
        ok(if is_right { "right" } else { "wrong" })
    });
    let _worker = crashed.work(stored).await;
    let site = crashed.serve(quick()).await;
    assert_eq!(end(&site, &location).await, "succeeded");
    let result = send(&site, get(&format!("{location}/result"))).await;
    assert_eq!(result.body, "right");
}
