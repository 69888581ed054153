//! Logs jobs, but never the content of a request or result.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Response;
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{AcceptedLayer, When};
use tracing::{Instrument, field::Empty, info_span};
use tracing_subscriber::fmt::format::FmtSpan;

use crate::support::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Collects the log of this thread while the guard lives.
    async fn collect() -> (Self, tracing::subscriber::DefaultGuard) {
        // If a callsite first runs in another test, without a subscriber, while this one sets its
        // own, it can stay disabled. Therefore each callsite runs once before.
        let service = AcceptedLayer::new().layer(inner(async |_| ok("")));
        let accepted = send(&service, post("/")).await;
        ended(&service, &accepted).await;
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(FmtSpan::NEW | FmtSpan::CLOSE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }
}

#[tokio::test(start_paused = true)]
async fn span_of_a_job_has_its_id_method_and_end() {
    let (log, _guard) = Log::collect().await;
    let service = AcceptedLayer::new().layer(inner(async |_| {
        tracing::info!("from the inner service");
        sleep(Duration::from_secs(1)).await;
        ok("")
    }));
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let log = log.text();
    let job = format!("job{{id={} method=POST", accepted.id());
    let inside = log
        .lines()
        .find(|line| line.contains("from the inner service"));
    assert!(inside.unwrap().contains(&job), "{log}");
    assert!(log.contains("end=succeeded"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn inner_spans_are_inside_the_span_of_the_job() {
    let (log, _guard) = Log::collect().await;
    let service = AcceptedLayer::new().layer(inner(async |_| {
        let render = async {
            sleep(Duration::from_secs(1)).await;
            tracing::info!("half done");
            sleep(Duration::from_secs(1)).await;
            ok("")
        };
        render
            .instrument(tracing::info_span!("render", pages = 10))
            .await
    }));
    let request = tracing::info_span!("request");
    let accepted = send(&service, post("/")).instrument(request).await;
    ended(&service, &accepted).await;
    let log = log.text();
    // Logged by the job's task, long after the 202.
    let inside = log.lines().find(|line| line.contains("half done")).unwrap();
    let job = format!("job{{id={} method=POST", accepted.id());
    let (_, after) = inside.split_once(&job).unwrap_or_else(|| panic!("{log}"));
    assert!(after.contains(":render{pages=10}:"), "{log}");
    assert!(!inside.contains("request"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn error_of_the_service_is_logged() {
    let (log, _guard) = Log::collect().await;
    let fails = inner(async |_| Err::<Response<Body>, _>(Failed));
    let service = AcceptedLayer::new().layer(fails);
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let log = log.text();
    assert!(
        log.contains("sesame") && log.contains("end=inner_error"),
        "{log}"
    );
}

#[tokio::test(start_paused = true)]
async fn request_and_result_are_not_logged() {
    let (log, _guard) = Log::collect().await;
    let service = AcceptedLayer::new().layer(inner(async |_| ok("the secret result")));
    let mut request = post("/path?token=secret").map(|_| Body::from("the secret body"));
    let header = "secret header".parse().unwrap();
    request.headers_mut().insert("authorization", header);
    let accepted = send(&service, request).await;
    ended(&service, &accepted).await;
    result(&service, &accepted).await;
    let log = log.text();
    assert!(
        log.contains("end=succeeded") && !log.contains("secret"),
        "{log}"
    );
}

#[tokio::test(start_paused = true)]
async fn accepted_request_is_logged_once_in_its_span() {
    let (log, _guard) = Log::collect().await;
    for when in [When::Always, When::After(Duration::from_secs(1))] {
        let service = AcceptedLayer::new().when(when).layer(inner(async |_| {
            sleep(Duration::from_secs(2)).await;
            ok("")
        }));
        let accepted = send(&service, post("/reports")).instrument(info_span!("request"));
        let accepted = accepted.await;
        ended(&service, &accepted).await;
        let log = log.text();
        let id = format!("request accepted id={}", accepted.id());
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&id)).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains(" INFO request: "), "{}", lines[0]);
        let job = format!(
            "job{{id={} method=POST kind=\"POST /reports\"",
            accepted.id()
        );
        assert!(log.contains(&job), "{log}");
    }
}

#[tokio::test(start_paused = true)]
async fn layer_makes_the_span_that_it_is_given() {
    let (log, _guard) = Log::collect().await;
    for when in [When::Always, When::After(Duration::from_secs(1))] {
        let layer = AcceptedLayer::new().when(when).make_span(|head, id, kind| {
            let tenant = head.headers["x-tenant"].to_str().unwrap();
            info_span!(parent: None, "report", %id, kind, tenant, end = Empty)
        });
        let service = layer.layer(inner(async |_| {
            sleep(Duration::from_secs(2)).await;
            tracing::info!("half done");
            ok("")
        }));
        let request = with(post("/reports"), &[("x-tenant", "acme")]);
        let accepted = send(&service, request).await;
        ended(&service, &accepted).await;
        let log = log.text();
        let id = accepted.id();
        let span = format!("report{{id={id} kind=\"POST /reports\" tenant=\"acme\"");
        let inside = log.lines().filter(|line| line.contains(&span));
        let inside: String = inside.collect();
        assert!(inside.contains("half done"), "{log}");
        assert!(inside.contains("end=succeeded"), "{log}");
    }
}

#[tokio::test(start_paused = true)]
async fn request_without_a_client_is_logged_in_its_span() {
    let (log, _guard) = Log::collect().await;
    let layer = AcceptedLayer::new().when(When::Preferred);
    let service = layer.layer(inner(async |_| {
        sleep(Duration::from_secs(2)).await;
        ok("")
    }));
    let request = with(post("/reports"), &[("prefer", "respond-async, wait=30")]);
    let mut sending = Box::pin(send(&service, request));
    let polled = async { assert!(futures_util::poll!(&mut sending).is_pending()) };
    polled.instrument(info_span!("request")).await;
    // A server drops the future outside of the request's span.
    drop(sending);
    sleep(Duration::from_secs(3)).await;
    let log = log.text();
    let line = log.lines().find(|line| line.contains("request accepted"));
    let line = line.expect("the event");
    assert!(line.contains(" INFO request: "), "{line}");
}
