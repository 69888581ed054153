//! The behavior of a layer and its monitor on any store, as a client sees it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    sync::{Mutex, Notify, mpsc},
    time::{sleep, timeout},
};
use tower::{ServiceExt, util::BoxCloneSyncService};
use tower_accepted::{JobHandle, Jobs, JobsBuilder, Owner, RequestBody, When};

use crate::support::{Answer, Body, Counter, Failed, get, ok, post, request, send, with};

/// The time limit of each step of a test. Only a failure takes that long.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) type Inner = BoxCloneSyncService<Request<RequestBody<Body>>, Response<Body>, Failed>;
pub(crate) type Outer = BoxCloneSyncService<Request<Body>, Response<Body>, Failed>;

/// A place where a service can be put behind a layer.
pub(crate) trait Site {
    /// Serves a service behind two layers, like two replicas that share a store. Whatever runs the
    /// store's jobs calls the service.
    async fn serve(&self, builder: JobsBuilder, when: When, service: Inner) -> [Outer; 2];

    /// Drains all registries of the site.
    async fn drain(&self);
}

fn boxed<F, Fut>(function: F) -> Inner
where
    F: Fn(Request<RequestBody<Body>>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<Body>, Failed>> + Send + 'static,
{
    BoxCloneSyncService::new(tower::service_fn(function))
}

async fn plain(site: &impl Site, service: Inner) -> [Outer; 2] {
    site.serve(Jobs::builder(), When::Always, service).await
}

/// Waits for the end of a job, and returns the monitor's answer.
async fn ended(service: &Outer, location: &str) -> Answer {
    let wait = with(get(location), &[("prefer", "wait=30")]);
    let answer = timeout(TIMEOUT, send(service, wait)).await.unwrap();
    let status = answer.json()["status"].as_str().unwrap().to_owned();
    assert!(status != "queued" && status != "running", "{answer:?}");
    answer
}

pub(crate) async fn accepted_request_is_run_and_replayed(site: impl Site) {
    let service = boxed(async |request: Request<RequestBody<Body>>| {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Failed)?.to_bytes();
        let mut response = ok("").map(|response| response.map(|_| Body::from(body)))?;
        let asked = head.headers.get("x-asked").cloned();
        response
            .headers_mut()
            .insert("x-asked", asked.ok_or(Failed)?);
        Ok(response)
    });
    let [one, other] = plain(&site, service).await;
    let mut post = with(post("/reports"), &[("x-asked", "so")]);
    *post.body_mut() = Body::from("a body");
    let accepted = send(&one, post).await;
    let location = accepted.location();
    let found = send(&other, get(location)).await;
    assert_eq!(found.status, StatusCode::OK, "{found:?}");
    let end = ended(&other, location).await;
    assert_eq!(end.json()["status"], "succeeded");
    let etag = end.header("etag").unwrap().to_owned();
    for service in [&one, &other] {
        let tagged = with(get(location), &[("if-none-match", &etag)]);
        assert_eq!(send(service, tagged).await.status, StatusCode::NOT_MODIFIED);
        let result = send(service, get(&format!("{location}/result"))).await;
        assert_eq!((result.status, result.text()), (StatusCode::OK, "a body"));
        assert_eq!(result.header("x-asked"), Some("so"));
        assert_eq!(result.header("asyncresult"), Some("200"));
    }
}

pub(crate) async fn waiting_reader_is_answered_at_the_end(site: impl Site) {
    let go = Arc::new(Notify::new());
    let service = {
        let go = go.clone();
        boxed(move |_| {
            let go = go.clone();
            async move {
                go.notified().await;
                ok("done")
            }
        })
    };
    let [one, other] = plain(&site, service).await;
    let accepted = send(&one, post("/reports")).await;
    let location = accepted.location().to_owned();
    let waiting = tokio::spawn(async move { ended(&other, &location).await });
    sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    go.notify_one();
    let end = timeout(TIMEOUT, waiting).await.unwrap().unwrap();
    assert_eq!(end.json()["status"], "succeeded");
}

pub(crate) async fn events_lead_to_the_end(site: impl Site) {
    let go = Arc::new(Notify::new());
    let service = {
        let go = go.clone();
        boxed(move |_| {
            let go = go.clone();
            async move {
                go.notified().await;
                ok("done")
            }
        })
    };
    let [one, other] = plain(&site, service).await;
    let accepted = send(&one, post("/reports")).await;
    let path = format!("{}/events", accepted.location());
    let response = other.oneshot(get(&path)).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    go.notify_one();
    let events = timeout(TIMEOUT, response.into_body().collect()).await;
    let events = events.unwrap().unwrap().to_bytes();
    let events = str::from_utf8(&events).unwrap();
    let last = events.rsplit("data: ").next().unwrap();
    assert!(last.contains(r#""status":"succeeded""#), "{events}");
}

pub(crate) async fn running_job_is_canceled(site: impl Site) {
    let (begun, stopped) = (Counter::default(), Counter::default());
    let service = {
        let (begun, stopped) = (begun.clone(), stopped.clone());
        boxed(move |_| {
            let (begun, stopped) = (begun.clone(), stopped.clone());
            async move {
                let job = JobHandle::current();
                begun.up();
                job.canceled().await;
                stopped.up();
                ok("too late")
            }
        })
    };
    let [one, other] = plain(&site, service).await;
    let accepted = send(&one, post("/reports")).await;
    until(async || begun.count() == 1).await;
    let location = accepted.location();
    let canceled = send(&other, post(&format!("{location}/cancel"))).await;
    assert_eq!(canceled.json()["status"], "canceled", "{canceled:?}");
    until(async || stopped.count() == 1).await;
    let result = send(&one, get(&format!("{location}/result"))).await;
    assert_eq!(result.status, StatusCode::CONFLICT);
}

pub(crate) async fn deleted_job_is_not_found(site: impl Site) {
    let [one, other] = plain(&site, boxed(async |_| ok("done"))).await;
    let accepted = send(&one, post("/reports")).await;
    let location = accepted.location();
    ended(&other, location).await;
    let deleted = send(&other, request("DELETE", location)).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    for service in [&one, &other] {
        // Another process may learn of it a moment later.
        let forgotten = async {
            while send(service, get(location)).await.status != StatusCode::NOT_FOUND {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let forgotten = timeout(Duration::from_secs(10), forgotten).await;
        forgotten.expect("the job is forgotten");
    }
}

pub(crate) async fn repeated_key_joins_the_job(site: impl Site) {
    let calls = Counter::default();
    let service = {
        let calls = calls.clone();
        boxed(move |_| {
            calls.up();
            async { ok("done") }
        })
    };
    let [one, other] = plain(&site, service).await;
    let keyed = |path: &str| with(post(path), &[("idempotency-key", "\"once\"")]);
    let first = send(&one, keyed("/reports")).await;
    assert_eq!(first.header("idempotent-replayed"), None);
    let second = send(&other, keyed("/reports")).await;
    assert_eq!(second.location(), first.location());
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    let unlike = send(&other, keyed("/other")).await;
    assert_eq!(unlike.status, StatusCode::UNPROCESSABLE_ENTITY);
    ended(&one, first.location()).await;
    let third = send(&one, keyed("/reports")).await;
    assert_eq!(third.location(), first.location());
    assert_eq!(calls.count(), 1);
    // The key of a deleted job is free.
    send(&one, request("DELETE", first.location())).await;
    let fourth = send(&other, keyed("/other")).await;
    assert_ne!(fourth.location(), first.location());
    ended(&one, fourth.location()).await;
    assert_eq!(calls.count(), 2);
}

pub(crate) async fn keyed_request_under_after_is_answered_inline(site: impl Site) {
    let calls = Counter::default();
    let service = {
        let calls = calls.clone();
        boxed(move |_| {
            calls.up();
            async { ok("at once") }
        })
    };
    let when = When::After(Duration::from_secs(20));
    let [one, other] = site.serve(Jobs::builder(), when, service).await;
    for (service, replayed) in [(&one, None), (&other, Some("true"))] {
        let keyed = with(post("/reports"), &[("idempotency-key", "\"inline\"")]);
        let answer = send(service, keyed).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "at once"));
        assert_eq!(answer.header("idempotent-replayed"), replayed);
    }
    assert_eq!(calls.count(), 1);
}

pub(crate) async fn job_is_visible_to_its_owner_only(site: impl Site) {
    let builder = Jobs::builder().owner(|head| head.headers.get("x-user").map(Owner::new));
    let service = boxed(async |_| ok("mine"));
    let [one, other] = site.serve(builder, When::Always, service).await;
    let accepted = send(&one, with(post("/reports"), &[("x-user", "me")])).await;
    let location = accepted.location();
    let status = async |service, path: &str, user| {
        send(service, with(get(path), &[("x-user", user)]))
            .await
            .status
    };
    assert_eq!(status(&other, location, "me").await, StatusCode::OK);
    assert_eq!(status(&other, location, "you").await, StatusCode::NOT_FOUND);
    let wait = with(get(location), &[("x-user", "me"), ("prefer", "wait=30")]);
    assert_eq!(send(&other, wait).await.json()["status"], "succeeded");
    let list = async |user| {
        let list = send(&other, with(get("/jobs"), &[("x-user", user)])).await;
        list.json()["jobs"].as_array().unwrap().len()
    };
    assert_eq!((list("me").await, list("you").await), (1, 0));
}

pub(crate) async fn only_slow_calls_move_to_the_background(site: impl Site) {
    let (go, calls) = (Arc::new(Notify::new()), Counter::default());
    let service = {
        let (go, calls) = (go.clone(), calls.clone());
        boxed(move |request: Request<_>| {
            calls.up();
            let go = go.clone();
            async move {
                if request.uri().path() == "/slow" {
                    go.notified().await;
                }
                ok("done")
            }
        })
    };
    let when = When::After(Duration::from_millis(100));
    let [one, other] = site.serve(Jobs::builder(), when, service).await;
    let quick = send(&one, post("/quick")).await;
    assert_eq!((quick.status, quick.text()), (StatusCode::OK, "done"));
    let accepted = send(&one, post("/slow")).await;
    let location = accepted.location();
    let running = send(&other, get(location)).await;
    assert_eq!(running.json()["status"], "running", "{running:?}");
    // Longer than the leases of tests: no other process may run the job.
    sleep(Duration::from_secs(3)).await;
    go.notify_one();
    assert_eq!(ended(&other, location).await.json()["status"], "succeeded");
    assert_eq!(calls.count(), 2);
}

pub(crate) async fn panic_error_and_http_error_end_jobs(site: impl Site) {
    let service = boxed(async |request: Request<_>| match request.uri().path() {
        "/panic" => panic!("on purpose"),
        "/error" => Err(Failed),
        _ => {
            let mut response = ok("no")?;
            *response.status_mut() = StatusCode::FORBIDDEN;
            Ok(response)
        }
    });
    let [one, other] = plain(&site, service).await;
    for (path, code, status) in [
        ("/panic", "panic", 500),
        ("/error", "inner_error", 500),
        ("/refused", "http_error", 403),
    ] {
        let accepted = send(&one, post(path)).await;
        let location = accepted.location();
        let end = ended(&other, location).await.json();
        assert_eq!(end["status"], "failed", "{path}");
        assert_eq!(end["error"]["code"], code);
        let result = send(&other, get(&format!("{location}/result"))).await;
        assert_eq!(result.status, status);
    }
}

pub(crate) async fn large_bodies_pass_through(site: impl Site) {
    let service = boxed(async |request: Request<RequestBody<Body>>| {
        let body = request.into_body().collect().await.map_err(|_| Failed)?;
        let body = body.to_bytes();
        ok("").map(|response| response.map(|_| Body::from([&body[..], &body[..]].concat())))
    });
    let [one, other] = plain(&site, service).await;
    let body: Vec<u8> = (0..1_500_000_u32)
        .map(|byte| (byte * 13 % 251) as u8)
        .collect();
    let mut post = post("/reports");
    *post.body_mut() = Body::from(body.clone());
    let accepted = send(&one, post).await;
    let location = accepted.location();
    assert_eq!(ended(&other, location).await.json()["status"], "succeeded");
    let result = send(&other, get(&format!("{location}/result"))).await;
    let twice = Bytes::from([&body[..], &body[..]].concat());
    assert!(result.body == twice, "the body has changed");
}

/// Returns a service whose response has the chunks that a test sends, and the sender.
fn produced() -> (mpsc::UnboundedSender<&'static str>, Inner) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let receiver = Arc::new(Mutex::new(receiver));
    let service = boxed(move |_| {
        let receiver = receiver.clone();
        async move {
            let chunks = stream::unfold(receiver, async |receiver| {
                let chunk = receiver.lock().await.recv().await?;
                Some((Ok::<_, Failed>(Bytes::from(chunk)), receiver))
            });
            Ok(Response::new(Body::from_stream(chunks)))
        }
    });
    (sender, service)
}

/// Reads so many bytes of a body.
async fn next(body: &mut Body, length: usize) -> Vec<u8> {
    let reading = async {
        let mut read = Vec::new();
        while read.len() < length {
            let frame = body.frame().await.expect("more").expect("no error");
            read.extend_from_slice(&frame.into_data().expect("data"));
        }
        read
    };
    timeout(TIMEOUT, reading).await.expect("data in time")
}

pub(crate) async fn output_is_streamed_to_any_process(site: impl Site) {
    let (chunks, service) = produced();
    let [one, other] = plain(&site, service).await;
    let accepted = send(&one, post("/reports")).await;
    let path = format!("{}/stream", accepted.location());
    chunks.send("first, ").unwrap();
    let open = async |service: &Outer, query: &str| {
        let request = get(&format!("{path}{query}"));
        let response = timeout(TIMEOUT, service.clone().oneshot(request)).await;
        let response = response.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["asyncresult"], "200");
        response.into_body()
    };
    let mut bodies = [open(&one, "").await, open(&other, "?offset=2").await];
    for (body, expected) in bodies.iter_mut().zip(["first, ", "rst, "]) {
        assert_eq!(next(body, expected.len()).await, expected.as_bytes());
    }
    for chunk in ["second, ", "third"] {
        chunks.send(chunk).unwrap();
        for body in &mut bodies {
            assert_eq!(next(body, chunk.len()).await, chunk.as_bytes());
        }
    }
    drop(chunks);
    for body in bodies {
        let rest = timeout(TIMEOUT, body.collect()).await.unwrap().unwrap();
        assert!(rest.to_bytes().is_empty());
    }
    ended(&other, accepted.location()).await;
    let whole = send(&other, get(&path)).await;
    assert_eq!(whole.body, "first, second, third");
}

pub(crate) async fn submitter_and_joiner_get_the_output_live(site: impl Site) {
    let (chunks, service) = produced();
    let builder = Jobs::builder();
    let [one, other] = site.serve(builder, When::Streamed, service).await;
    let keyed = || with(post("/reports"), &[("idempotency-key", "\"k\"")]);
    chunks.send("first, ").unwrap();
    let submitted = one.oneshot(keyed()).await.unwrap();
    let joined = timeout(TIMEOUT, other.oneshot(keyed())).await;
    let joined = joined.unwrap().unwrap();
    assert_eq!(joined.headers()["idempotent-replayed"], "true");
    let mut bodies = [submitted, joined].map(|response| {
        assert!(response.headers().contains_key("link"));
        response.into_body()
    });
    for body in &mut bodies {
        assert_eq!(next(body, 7).await, b"first, ");
    }
    chunks.send("second").unwrap();
    drop(chunks);
    for body in bodies {
        let rest = timeout(TIMEOUT, body.collect()).await.unwrap().unwrap();
        assert_eq!(rest.to_bytes(), "second");
    }
}

pub(crate) async fn progress_is_shown(site: impl Site) {
    let go = Arc::new(Notify::new());
    let service = {
        let go = go.clone();
        boxed(move |_| {
            let go = go.clone();
            async move {
                let job = JobHandle::current();
                job.progress(0.5);
                job.message("halfway");
                go.notified().await;
                ok("done")
            }
        })
    };
    let [one, other] = plain(&site, service).await;
    let accepted = send(&one, post("/reports")).await;
    let location = accepted.location();
    until(async || send(&other, get(location)).await.json()["message"] == "halfway").await;
    let half = send(&other, get(location)).await.json();
    assert_eq!(half["percentComplete"], 50);
    go.notify_one();
    ended(&one, location).await;
}

pub(crate) async fn drained_site_accepts_nothing(site: impl Site) {
    let [one, _] = plain(&site, boxed(async |_| ok("done"))).await;
    let accepted = send(&one, post("/reports")).await;
    ended(&one, accepted.location()).await;
    site.drain().await;
    let refused = send(&one, post("/reports")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        send(&one, get(accepted.location())).await.status,
        StatusCode::OK
    );
}

/// Checks until `is_true`: no notification comes from another process.
async fn until(mut is_true: impl AsyncFnMut() -> bool) {
    let checking = async {
        while !is_true().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, checking).await.expect("a change in time");
}
