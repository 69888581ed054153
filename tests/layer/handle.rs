//! Reports progress and observes cancellation through a handle.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tower::Layer;
use tower_accepted::{AcceptedLayer, JobHandle, Jobs, When};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn clients_see_progress_at_most_every_50_ms() {
    let jobs = Jobs::new();
    let service = jobs.layer().layer(inner(async |_| {
        let job = JobHandle::current();
        for step in 1..=1_000 {
            job.progress(f64::from(step) / 2_000.0);
            job.message(format!("step {step}"));
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_secs(1)).await;
        // All within one pause, so clients do not see the second.
        job.message("first");
        sleep(Duration::from_millis(10)).await;
        job.message("second");
        sleep(Duration::from_millis(10)).await;
        job.message("last");
        ok("")
    }));
    let accepted = send(&service, post("/")).await;
    let mut seen = Vec::new();
    let path = accepted.location().to_owned();
    let mut etag = String::from("\"none\"");
    loop {
        let request = with(
            get(&path),
            &[("prefer", "wait=60"), ("if-none-match", &etag)],
        );
        let answer = send(&service, request).await;
        etag = answer.header("etag").unwrap().to_owned();
        let document = answer.json();
        let message = document["message"].as_str().unwrap_or_default().to_owned();
        seen.push((Instant::now(), message));
        if document["status"] == "succeeded" {
            break;
        }
    }
    let steps = seen
        .iter()
        .filter(|(_, message)| message.starts_with("step"));
    let steps: Vec<_> = steps.collect();
    // The first report, and one second of reports every 50 ms.
    assert!((20..=22).contains(&steps.len()), "{steps:?}");
    for pair in steps.windows(2) {
        let apart = pair[1].0 - pair[0].0;
        assert!(apart >= Duration::from_millis(50), "{apart:?}");
    }
    let (_, last) = steps.last().unwrap();
    assert_eq!(last, "step 1000", "the last report is missing");
    let rest: Vec<_> = seen.iter().map(|(_, message)| &**message).collect();
    assert_eq!(rest[rest.len() - 2..], ["first", "last"]);
}

#[tokio::test(start_paused = true)]
async fn progress_is_visible_while_running_and_after() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        let job = JobHandle::current();
        job.progress(0.4);
        job.message("page 4 of 10");
        sleep(Duration::from_secs(10)).await;
        job.message("page 10 of 10");
        job.progress(1.0);
        ok("")
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    let document = send(&service, get(accepted.location())).await.json();
    assert_eq!(document["percentComplete"], 40);
    assert_eq!(document["message"], "page 4 of 10");
    let document = ended(&service, &accepted).await;
    assert_eq!(document["percentComplete"], 100);
    assert_eq!(document["message"], "page 10 of 10");
}

#[tokio::test(start_paused = true)]
async fn succeeded_job_is_at_100_percent() {
    for (path, percent) in [("/ok", Some(100)), ("/fails", Some(83)), ("/quiet", None)] {
        let jobs = Jobs::new();
        let service = jobs.layer().layer(inner(async |request| {
            let path = request.uri().path().to_owned();
            let job = JobHandle::current();
            job.message("almost done");
            if path != "/quiet" {
                job.progress(0.83);
            }
            sleep(Duration::from_secs(1)).await;
            let mut response = ok("")?;
            if path == "/fails" {
                *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            }
            Ok(response)
        }));
        let accepted = send(&service, post(path)).await;
        let events = get(&format!("{}/events", accepted.location()));
        let events = send(&service, events).await;
        let (_, last) = events.text().rsplit_once("data: ").unwrap();
        let last: serde_json::Value = serde_json::from_str(last.trim()).unwrap();
        let document = ended(&service, &accepted).await;
        assert_eq!(last, document, "{path}");
        let shown = document.get("percentComplete");
        assert_eq!(shown, percent.map(Into::into).as_ref(), "{path}");
        let snapshot = jobs.get(accepted.id()).await.unwrap().unwrap();
        let fraction = percent.map(|percent| f64::from(percent) / 100.0);
        assert_eq!(snapshot.progress.fraction, fraction, "{path}");
    }
}

#[tokio::test]
async fn blocking_thread_reports_and_sees_a_cancel() {
    let (reported, seen) = oneshot::channel();
    let (stopped, is_stopped) = oneshot::channel();
    let threads = std::sync::Mutex::new(Some((reported, stopped)));
    let threads = std::sync::Arc::new(threads);
    let service = AcceptedLayer::new().layer(inner(move |_| {
        let (reported, stopped) = threads.lock().unwrap().take().unwrap();
        let job = JobHandle::current();
        async {
            tokio::task::spawn_blocking(move || {
                job.progress(0.5);
                reported.send(job.clone()).unwrap();
                while !job.is_canceled() {
                    std::thread::yield_now();
                }
                stopped.send(()).unwrap();
            })
            .await
            .unwrap();
            ok("")
        }
    }));
    let accepted = send(&service, post("/")).await;
    let job = seen.await.unwrap();
    assert_eq!(job.id(), Some(accepted.id()));
    loop {
        let document = send(&service, get(accepted.location())).await.json();
        if document["percentComplete"] == 50 {
            break;
        }
        tokio::task::yield_now().await;
    }
    send(&service, post(&format!("{}/cancel", accepted.location()))).await;
    is_stopped.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn progress_before_the_202_is_kept() {
    let service = AcceptedLayer::new()
        .when(When::After(Duration::from_secs(1)))
        .layer(inner(async |_| {
            let job = JobHandle::current();
            assert_eq!(job.id(), None, "not accepted yet");
            job.progress(0.1);
            sleep(Duration::from_secs(2)).await;
            assert!(job.id().is_some(), "accepted by now");
            job.message(job.id().unwrap().to_string());
            ok("")
        }));
    let accepted = send(&service, post("/")).await;
    assert_eq!(accepted.json()["percentComplete"], 10);
    let document = ended(&service, &accepted).await;
    assert_eq!(document["message"], accepted.id().to_string());
}

#[tokio::test(start_paused = true)]
async fn handle_has_no_effect_after_the_end() {
    let (sender, receiver) = oneshot::channel();
    let sender = std::sync::Arc::new(std::sync::Mutex::new(Some(sender)));
    let jobs = Jobs::new();
    let service = jobs.layer().layer(inner(move |_| {
        let sender = sender.lock().unwrap().take().unwrap();
        async move {
            sender.send(JobHandle::current()).unwrap();
            ok("")
        }
    }));
    let accepted = send(&service, post("/")).await;
    let job = receiver.await.unwrap();
    let document = ended(&service, &accepted).await;
    job.progress(0.9);
    job.message("too late");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(ended(&service, &accepted).await, document);
    assert!(job.is_canceled());
}

#[tokio::test(start_paused = true)]
async fn response_body_can_report_progress() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        let frames = futures_util::stream::unfold(0_u8, |frame| async move {
            sleep(Duration::from_secs(1)).await;
            JobHandle::current().progress(f64::from(frame) / 4.0);
            (frame < 4).then(|| (Ok::<_, Failed>("frame "), frame + 1))
        });
        Ok(http::Response::new(Body::from_stream(frames)))
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_millis(3_500)).await;
    let document = send(&service, get(accepted.location())).await.json();
    assert_eq!(document["percentComplete"], 50);
    assert_eq!(ended(&service, &accepted).await["percentComplete"], 100);
}
