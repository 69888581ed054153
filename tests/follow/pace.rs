//! Tests the times of polls and the use of `Prefer: wait`.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tokio::time::Instant;
use tower_accepted::follow::{FollowAcceptedLayer, NotFollowed, Reason};

use crate::support::*;

const MONITOR: (&str, &str) = ("operation-location", "/jobs/1");

fn accepted() -> Reply {
    reply(202).with(MONITOR.0, MONITOR.1)
}

fn running() -> Reply {
    document(json!({ "status": "running" }))
}

fn succeeded() -> Reply {
    document(json!({ "status": "succeeded" }))
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_to_the_second() {
    let date = "Mon, 23 Nov 2026 13:40:00 GMT";
    let (server, log) = script([
        accepted().with("retry-after", "7"),
        running().with("retry-after", "1"),
        running()
            .with("retry-after", "Mon, 23 Nov 2026 13:41:30 GMT")
            .with("date", date),
        running().with("retry-after", "1200"),
        succeeded(),
    ]);
    post(server).await.expect("a response");
    assert_eq!(
        log.gaps(),
        [seconds(7), seconds(1), seconds(90), seconds(1200)]
    );
}

#[tokio::test(start_paused = true)]
async fn polls_are_never_sent_without_a_pause() {
    let date = "Mon, 23 Nov 2026 13:40:00 GMT";
    let (server, log) = script([
        accepted().with("retry-after", "0"),
        running().with("retry-after", date).with("date", date),
        running().with("retry-after", "0"),
        succeeded(),
    ]);
    let shortest = Duration::from_millis(250);
    let layer = FollowAcceptedLayer::new().pauses(shortest, seconds(30));
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
    assert_eq!(log.gaps(), [shortest; 3]);
}

#[tokio::test(start_paused = true)]
async fn pauses_double_with_jitter_by_default() {
    let polls = 10;
    let replies = (0..polls).map(|_| running());
    let replies = [accepted()].into_iter().chain(replies).chain([succeeded()]);
    let (server, log) = script(replies);
    post(server).await.expect("a response");
    let mut longest = 1.0_f64;
    let gaps = log.gaps();
    assert_eq!(gaps.len(), polls + 1);
    for gap in &gaps {
        let gap = gap.as_secs_f64();
        // Timers have a resolution of 1 ms.
        assert!(gap >= longest / 2.0 && gap <= longest + 0.002, "{gaps:?}");
        longest = (longest * 2.0).min(30.0);
    }
    let distinct: std::collections::HashSet<_> = gaps.iter().map(Duration::as_nanos).collect();
    assert!(distinct.len() > 2, "no jitter in {gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn wait_is_sent_only_to_servers_that_read_prefer() {
    let (server, log) = script([
        accepted(),
        running(),
        running().with("vary", "Accept, Prefer"),
        running(),
        succeeded(),
    ]);
    let layer = FollowAcceptedLayer::new().wait(Duration::from_millis(20_900));
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
    let prefer: Vec<_> = log
        .all()
        .iter()
        .map(|seen| seen.header("prefer").map(str::to_owned))
        .collect();
    let wait = Some("wait=20".to_owned());
    assert_eq!(prefer, [None, None, None, wait.clone(), wait]);
}

#[tokio::test(start_paused = true)]
async fn zero_wait_disables_prefer() {
    let (server, log) = script([accepted().with("vary", "Prefer"), succeeded()]);
    let layer = FollowAcceptedLayer::new().wait(Duration::ZERO);
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
    assert_eq!(log.last().header("prefer"), None);
}

#[tokio::test(start_paused = true)]
async fn wait_ends_before_the_deadline() {
    let (server, log) = script([
        accepted()
            .with("preference-applied", "respond-async")
            .with("retry-after", "5"),
        succeeded(),
    ]);
    let layer = FollowAcceptedLayer::new().timeout(Duration::from_millis(12_500));
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
    assert_eq!(log.last().header("prefer"), Some("wait=7"));
}

#[tokio::test(start_paused = true)]
async fn wait_shrinks_until_a_gateway_permits_it() {
    let begun = Instant::now();
    let (server, _) = serve(
        move |seen| match (seen.method.as_str(), seen.header("prefer")) {
            ("POST", _) => accepted().with("vary", "Prefer"),
            // A gateway with a timeout of 10 s.
            (_, Some("wait=30" | "wait=15")) => reply(504).after(seconds(10)),
            (_, Some("wait=7")) if begun.elapsed() < seconds(300) => running().after(seconds(7)),
            (_, Some("wait=7")) => succeeded(),
            (_, prefer) => panic!("{prefer:?}"),
        },
    );
    let layer = FollowAcceptedLayer::new().max_failures(2);
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
}

/// A layer such as tower-http's answers 408 if a request takes too long.
#[tokio::test(start_paused = true)]
async fn wait_shrinks_until_a_time_out_layer_permits_it() {
    let monitors: [fn() -> Reply; 2] = [
        accepted,
        // Without a document, a 408 could be a result.
        || reply(202).with("content-location", "/jobs/1"),
    ];
    for accepted in monitors {
        let (server, log) =
            serve(
                move |seen| match (seen.method.as_str(), seen.header("prefer")) {
                    ("POST", _) => accepted().with("vary", "Prefer"),
                    (_, Some("wait=30" | "wait=15")) => reply(408).after(seconds(10)),
                    (_, Some("wait=7")) => succeeded().after(seconds(7)),
                    (_, prefer) => panic!("{prefer:?}"),
                },
            );
        let answer = post(server).await.expect("a response");
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(log.all().len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn wait_extends_the_answer_timeout() {
    let (server, log) = script([
        accepted().with("vary", "Prefer"),
        succeeded().after(seconds(29)),
    ]);
    let layer = FollowAcceptedLayer::new().answer_timeout(seconds(2));
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
    assert_eq!(log.all().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn held_response_shortens_the_next_pause() {
    let (server, log) = script([
        accepted().with("vary", "Prefer").with("retry-after", "4"),
        // Held for the whole wait, so the next poll follows at once.
        running().with("retry-after", "10").after(seconds(30)),
        // Held for less than `Retry-After`.
        running().with("retry-after", "10").after(seconds(3)),
        // Not held.
        running().with("retry-after", "10"),
        succeeded().after(seconds(12)),
    ]);
    let begun = Instant::now();
    post(server).await.expect("a response");
    assert_eq!(
        log.gaps(),
        [seconds(4), seconds(30), seconds(10), seconds(10)]
    );
    assert_eq!(
        begun.elapsed(),
        seconds(66),
        "the end is reported when it happens"
    );
}

#[tokio::test(start_paused = true)]
async fn slow_response_does_not_shorten_the_pause() {
    let (server, log) = script([
        accepted(),
        running().with("retry-after", "10").after(seconds(8)),
        succeeded(),
    ]);
    post(server).await.expect("a response");
    assert_eq!(log.gaps()[1], seconds(18));
}

#[tokio::test(start_paused = true)]
async fn observer_gets_each_change_while_polls_are_held() {
    let document = |percent: u8| {
        running()
            .json(json!({ "status": "running", "percentComplete": percent }))
            .with("etag", &format!("\"{percent}\""))
    };
    let (server, log) = script([
        accepted().with("vary", "Prefer"),
        document(10),
        document(20).after(seconds(9)),
        reply(304).with("etag", "\"20\"").after(seconds(30)),
        document(30).after(seconds(2)),
        succeeded(),
    ]);
    let (sender, mut updates) = tokio::sync::mpsc::unbounded_channel();
    let layer = FollowAcceptedLayer::new().on_update(move |update| {
        let _ = sender.send(update.percent);
    });
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
    let conditions: Vec<_> = log
        .all()
        .iter()
        .map(|seen| seen.header("if-none-match").map(str::to_owned))
        .collect();
    let tag = |percent: u8| Some(format!("\"{percent}\""));
    assert_eq!(conditions, [None, None, tag(10), tag(20), tag(20), tag(30)]);
    let mut seen = Vec::new();
    while let Ok(percent) = updates.try_recv() {
        seen.push(percent);
    }
    assert_eq!(seen, [None, Some(10.0), Some(20.0), Some(30.0), None]);
}

#[tokio::test(start_paused = true)]
async fn entity_tag_is_not_sent_to_another_monitor() {
    let (server, log) = script([
        accepted().with("vary", "Prefer"),
        running()
            .with("etag", "\"1\"")
            .with("operation-location", "/jobs/2"),
        running().with("etag", "\"1\""),
        reply(308).with("location", "/jobs/3"),
        succeeded(),
    ]);
    let layer = FollowAcceptedLayer::new().on_update(drop);
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
    let shown = |seen: &Seen| seen.header("if-none-match").is_some();
    let shown: Vec<_> = log.all().iter().map(shown).collect();
    assert_eq!(shown, [false, false, false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn polls_are_unconditional_without_an_observer() {
    let (server, log) = script([
        accepted().with("vary", "Prefer"),
        running().with("etag", "\"1\""),
        succeeded(),
    ]);
    post(server).await.expect("a response");
    assert!(
        log.all()
            .iter()
            .all(|seen| seen.header("if-none-match").is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn polls_are_limited() {
    let (server, log) = serve(|seen| match seen.method.as_str() {
        "POST" => accepted(),
        _ => running().with("retry-after", "1"),
    });
    let layer = FollowAcceptedLayer::new().max_polls(5);
    let error = failure(follow(&layer, server, request("POST", REPORTS)).await);
    assert!(
        matches!(error.reason(), Reason::TooManyPolls(5)),
        "{error:?}"
    );
    assert_eq!(log.all().len(), 6);
    assert_eq!(
        error.document().and_then(|document| document.status()),
        Some("running")
    );
}

#[tokio::test(start_paused = true)]
async fn last_poll_may_lead_to_the_result() {
    let end = json!({ "status": "succeeded", "resourceLocation": "/r" });
    let (server, _) = script([accepted(), running(), document(end), reply(201)]);
    let layer = FollowAcceptedLayer::new().max_polls(2);
    let answer = follow(&layer, server, request("POST", REPORTS)).await;
    assert_eq!(answer.expect("a response").status, StatusCode::CREATED);
}

#[tokio::test(start_paused = true)]
async fn timeout_applies_in_every_phase() {
    let end = || document(json!({ "status": "succeeded", "resourceLocation": "/r" }));
    let never = Duration::from_secs(1_000_000);
    for replies in [
        vec![accepted().with("retry-after", "1000000")],
        vec![accepted(), running().with("retry-after", "1000000")],
        vec![accepted(), end(), reply(200).after(never)],
        vec![
            accepted(),
            reply(307)
                .with("location", "/x")
                .with("retry-after", "1000000"),
        ],
    ] {
        let (server, _) = script(replies);
        let layer = FollowAcceptedLayer::new()
            .timeout(seconds(90))
            .answer_timeout(never);
        let begun = Instant::now();
        let error = failure(follow(&layer, server, request("POST", REPORTS)).await);
        assert!(matches!(error.reason(), Reason::TimedOut(_)), "{error:?}");
        assert_eq!(begun.elapsed(), seconds(90));
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_can_be_disabled() {
    let (server, _) = script([accepted().with("retry-after", "100000"), succeeded()]);
    let layer = FollowAcceptedLayer::new().timeout(None);
    let begun = Instant::now();
    follow(&layer, server, request("POST", REPORTS))
        .await
        .expect("a response");
    assert_eq!(begun.elapsed(), seconds(100_000));
}

#[tokio::test(start_paused = true)]
async fn timeout_excludes_the_original_request() {
    let (server, _) = script([reply(202).after(seconds(5000))]);
    let answer = post(server).await.expect("a response");
    assert_eq!(answer.extension(), Some(NotFollowed::NoMonitor));
}
