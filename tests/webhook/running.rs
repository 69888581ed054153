//! Events of jobs that run.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use tokio::sync::mpsc;
use tower::Layer;
use tower_accepted::{
    JobHandle, Jobs, RequestBody, When,
    webhook::{EventType, Secret, Target, WebhookEvent},
};

use crate::{
    kit::{LONG, RawReceiver, Receiver, SHORT, Site, notifying, until},
    layered::{Answer, inner, ok, post, send},
};

const LIVE: [EventType; 3] = [
    EventType::JobStarted,
    EventType::JobProgress,
    EventType::JobSucceeded,
];

/// A job whose progress a test reports.
struct Reported {
    jobs: Jobs,
    accepted: Answer,
    steps: mpsc::UnboundedSender<f64>,
}

impl Reported {
    /// Submits a job, which ends when this is dropped.
    async fn submit(jobs: Jobs) -> Self {
        let (steps, received) = mpsc::unbounded_channel();
        let received = std::sync::Arc::new(tokio::sync::Mutex::new(received));
        let service = inner(move |_: Request<RequestBody<Body>>| {
            let received = received.clone();
            async move {
                let job = JobHandle::current();
                let mut received = received.lock().await;
                while let Some(fraction) = received.recv().await {
                    job.progress(fraction);
                }
                ok("the report")
            }
        });
        let service = jobs.layer().when(When::Always).layer(service);
        let accepted = send(&service, post("/reports")).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED);
        Self {
            jobs,
            accepted,
            steps,
        }
    }

    /// Reports progress, and waits until readers can see it.
    async fn report(&self, percent: u8) {
        self.steps
            .send(f64::from(percent) / 100.0)
            .expect("it runs");
        let fraction = Some(f64::from(percent) / 100.0);
        let id = self.accepted.id();
        let looking = async {
            loop {
                let job = self.jobs.get(id).await.expect("no error");
                if job.expect("the job").progress.fraction == fraction {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(LONG, looking).await.expect("in time");
    }
}

fn jobs(secret: &Secret, url: &str, timeout: Duration) -> Jobs {
    let target = Target::new(url).events(LIVE);
    let webhooks = notifying(secret, [target]).retry_delays([SHORT]);
    Jobs::builder().webhooks(webhooks.timeout(timeout)).build()
}

async fn next(receiver: &mut Receiver, secret: &Secret) -> (String, Option<u8>) {
    let event: WebhookEvent = receiver.next().await.verified(secret);
    (event.type_name.clone(), event.percent_complete())
}

#[tokio::test]
async fn running_job_sends_its_newest_progress() {
    let mut receiver = Receiver::taking().await;
    let secret = Secret::generate();
    let job = Reported::submit(jobs(&secret, &receiver.url, LONG)).await;
    let started = receiver.next().await;
    assert_eq!(started.verified(&secret).type_name, "job.started");
    let id = format!("{}_0_", job.accepted.id());
    assert!(started.field("webhook-id").starts_with(&id));

    let mut told = Vec::new();
    for percent in 1..=25 {
        job.report(percent).await;
    }
    while told.last().is_none_or(|&(percent, _)| percent < 25) {
        let event = receiver.next().await.verified(&secret);
        assert_eq!(event.type_name, "job.progress");
        let at: jiff::Timestamp = event.timestamp.parse().expect("RFC 3339");
        told.push((event.percent_complete().expect("progress"), at));
    }
    // By the times in the notifications, which have milliseconds.
    let interval = jiff::SignedDuration::from_millis(499);
    for pair in told.windows(2) {
        let [(percent, at), (next_percent, next_at)] = pair else {
            panic!("not a pair");
        };
        assert!(percent < next_percent, "{told:?}");
        assert!(next_at.duration_since(*at) >= interval, "{told:?}");
    }
    let Reported { jobs, steps, .. } = job;
    drop(steps);
    let (name, _) = next(&mut receiver, &secret).await;
    assert_eq!(name, "job.succeeded");
    jobs.drain(LONG).await;
    assert!(receiver.is_idle());
}

#[tokio::test]
async fn event_of_a_running_job_is_sent_once() {
    let mut receiver = Receiver::start(|_| StatusCode::NOT_FOUND).await;
    let secret = Secret::generate();
    let job = Reported::submit(jobs(&secret, &receiver.url, LONG)).await;
    let (name, _) = next(&mut receiver, &secret).await;
    assert_eq!(name, "job.started");
    job.report(10).await;
    let (name, _) = next(&mut receiver, &secret).await;
    assert_eq!(name, "job.progress");
    let Reported {
        jobs: _jobs, steps, ..
    } = job;
    drop(steps);
    // Only the end is retried.
    for _ in 0..2 {
        let (name, _) = next(&mut receiver, &secret).await;
        assert_eq!(name, "job.succeeded");
    }
}

#[tokio::test]
async fn silent_receiver_slows_no_running_job() {
    let receiver = RawReceiver::hanging().await;
    let secret = Secret::generate();
    let job = Reported::submit(jobs(&secret, &receiver.url(), LONG)).await;
    until("a connection", || receiver.connections() == 1).await;
    // The first notification is never answered, and holds up neither the job nor its progress.
    for percent in 0..10 {
        job.report(percent).await;
    }
    let Reported {
        jobs,
        steps,
        accepted,
    } = job;
    drop(steps);
    let ended = async {
        loop {
            let job = jobs.get(accepted.id()).await.expect("no error");
            if job.expect("the job").status.is_ended() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, ended).await.expect("in time");
    // The end has a connection of its own, and there was none for each progress.
    until("the end", || receiver.connections() == 2).await;
}

#[tokio::test]
async fn short_job_may_skip_its_start() {
    let mut receiver = Receiver::taking().await;
    let secret = Secret::generate();
    let target = Target::new(&receiver.url).events(LIVE);
    let site = Site::notifying(notifying(&secret, [target]));
    site.submit("/reports").await;
    loop {
        let (name, _) = next(&mut receiver, &secret).await;
        match &*name {
            "job.started" => {}
            name => break assert_eq!(name, "job.succeeded"),
        }
    }
}
