//! The log of attempts that fail.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::StatusCode;
use tower_accepted::webhook::{Secret, Target};
use tracing_subscriber::filter::LevelFilter;

use crate::kit::{LONG, RawReceiver, Receiver, SHORT, Site, notifying};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn failed_attempt_is_one_line_without_secrets() {
    // Not to be disabled for all by another test that has no subscriber.
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    tracing::callsite::rebuild_interest_cache();

    let failing = Receiver::start(|_| StatusCode::BAD_GATEWAY).await;
    let gone = RawReceiver::hanging().await.url();
    let secret = Secret::generate();
    let targets = [
        Target::new(format!("{}/hook?token=s3cret", failing.url)),
        Target::new(format!("{gone}/hook?token=s3cret")),
    ];
    let site = Site::notifying(notifying(&secret, targets).retry_delays([SHORT, SHORT]));
    let accepted = site.submit("/reports").await;
    let is_settled = || async {
        let callbacks = site.callbacks(&accepted).await;
        callbacks
            .iter()
            .all(|it| it["delivery"]["state"] == "failed")
    };
    while !is_settled().await {
        tokio::time::sleep(SHORT).await;
    }
    site.jobs.drain(LONG).await;
    let text = log.text();
    let lines = text.lines().filter(|line| line.contains("WARN"));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 6, "{text}");
    for (target, failure, url) in [
        (0, "failure=\"status\" status=502", &*failing.url),
        (1, "failure=\"connect\"", &*gone),
    ] {
        let id = format!("id={}_{target}", accepted.id());
        for attempt in 1..=3 {
            let attempt = format!("attempt={attempt}");
            let url = format!("{url}/hook\"");
            let parts = [&*id, &attempt, failure, &url];
            let of_attempt = |line: &&&str| parts.iter().all(|part| line.contains(part));
            assert_eq!(
                lines.iter().filter(of_attempt).count(),
                1,
                "{parts:?}\n{text}"
            );
        }
    }
    assert!(!text.contains("s3cret"), "{text}");
    assert!(!text.contains("token"), "{text}");
    let secret = secret.expose();
    assert!(
        !text.contains(secret.trim_start_matches("whsec_")),
        "{text}"
    );
}
