//! The flags that set limits.

use http::StatusCode;
use tokio::spawn;

use crate::{
    client::{ended, get, post, raw, request, result, send},
    flags::preferring,
    program::Program,
    upstream::Upstream,
};

#[tokio::test]
async fn max_unfinished_limits_the_unfinished_jobs() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--max-unfinished", "2"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let one = post(gateway.address, "/reports", "").await.job();
    post(gateway.address, "/reports", "").await.job();
    let refused = post(gateway.address, "/reports", "").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.header("retry-after").is_some());
    post(gateway.address, &format!("{one}/cancel"), "").await;
    // The permit returns as soon as the canceled call is dropped.
    loop {
        let answer = post(gateway.address, "/reports", "").await;
        if answer.status == StatusCode::ACCEPTED {
            break;
        }
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    upstream.next().await;
}

#[tokio::test]
async fn shed_when_full_refuses_what_would_pass() {
    let mut upstream = Upstream::start().await;
    for sheds in [false, true] {
        let flags = [
            "--after-ms",
            "0",
            "--max-unfinished",
            "1",
            "--shed-when-full",
        ];
        let flags = if sheds { &flags[..] } else { &flags[..4] };
        let gateway = Program::gateway(upstream.address, flags).await;
        post(gateway.address, "/reports", "").await.job();
        let running = upstream.next().await;
        let (second, ()) = tokio::join!(post(gateway.address, "/reports", ""), async {
            if !sheds {
                upstream.next().await.ok("passed").await;
            }
        });
        let expected = if sheds {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        };
        assert_eq!(second.status, expected);
        running.ok("the report").await;
    }
}

#[tokio::test]
async fn max_result_limits_the_kept_body() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--max-result", "10"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let job = post(gateway.address, "/reports", "").await.job();
    upstream.next().await.ok("0123456789").await;
    assert_eq!(result(gateway.address, &job).await.body, "0123456789");

    let job = post(gateway.address, "/reports", "").await.job();
    upstream.next().await.ok("0123456789+").await;
    let document = ended(gateway.address, &job).await;
    assert_eq!(document["error"]["code"], "result_too_large");
}

#[tokio::test]
async fn retain_secs_is_the_retention_of_an_ended_job() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--retain-secs", "0"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let job = post(gateway.address, "/reports", "").await.job();
    let received = upstream.next().await;
    assert!(get(gateway.address, &job).await.is_unfinished());
    received.ok("report").await;
    loop {
        let answer = get(gateway.address, &job).await;
        if answer.status == StatusCode::GONE {
            break;
        }
        assert!(answer.is_unfinished(), "{answer:?}");
    }

    let flags = ["--always", "--retain-secs", "7200"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let job = post(gateway.address, "/reports", "").await.job();
    upstream.next().await.ok("report").await;
    let document = ended(gateway.address, &job).await;
    let time = |name: &str| -> jiff::Timestamp {
        let text = document[name].as_str().expect("a time");
        text.parse().expect("RFC 3339")
    };
    let kept = time("expiresAt").duration_since(time("finishedAt"));
    assert_eq!(kept.as_secs(), 7200);
}

#[tokio::test]
async fn job_timeout_secs_fails_a_slow_job() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--job-timeout-secs", "1"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let job = post(gateway.address, "/reports", "").await.job();
    let received = upstream.next().await;
    received.hung_up().await;
    let document = ended(gateway.address, &job).await;
    assert_eq!(document["error"]["code"], "timeout");
    let result = result(gateway.address, &job).await;
    assert_eq!(result.status, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn job_timeout_can_be_unlimited() {
    let mut upstream = Upstream::start().await;
    for seconds in ["0", "18446744073709551615"] {
        let flags = ["--always", "--job-timeout-secs", seconds];
        let gateway = Program::gateway(upstream.address, &flags).await;
        let job = post(gateway.address, "/reports", "").await.job();
        upstream.next().await.ok("report").await;
        assert_eq!(
            result(gateway.address, &job).await.body,
            "report",
            "{seconds}"
        );
    }
}

#[tokio::test]
async fn max_fields_admits_large_heads() {
    let mut upstream = Upstream::start().await;
    let many: String = (0..150).map(|index| format!("X-{index}: 1\r\n")).collect();
    for (flags, is_admitted) in [(&[][..], false), (&["--max-fields", "200"], true)] {
        let gateway = Program::gateway(upstream.address, flags).await;
        let address = gateway.address;
        let expected = if is_admitted {
            ["200", "200"]
        } else {
            ["502", "431"]
        };
        let ask = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let client = spawn(async move { raw(address, ask).await });
        let response = format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n");
        upstream.next().await.answer(response).await;
        let answer = client.await.expect("no panic");
        let start = format!("HTTP/1.1 {} ", expected[0]);
        assert!(answer.starts_with(&start), "{answer}");

        let ask = format!("GET / HTTP/1.1\r\nHost: a\r\n{many}Connection: close\r\n\r\n");
        let client = spawn(async move { raw(address, ask.as_bytes()).await });
        if is_admitted {
            let received = upstream.next().await;
            assert_eq!(received.all("x-149"), ["1"]);
            received.ok("").await;
        }
        let answer = client.await.expect("no panic");
        let expected = if is_admitted { "200" } else { "431" };
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn max_body_limits_what_becomes_a_job() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--max-body", "4"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    post(gateway.address, "/reports", "four").await.job();
    upstream.next().await.ok("").await;
    let refused = post(gateway.address, "/reports", "five+").await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn max_wait_secs_limits_a_preferred_wait() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--max-wait-secs", "0"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    // The upstream does not respond until the 202 is there.
    let accepted = preferring(&gateway, "wait=3600").await;
    let job = accepted.job();
    let waiting = request("GET", &job).header("prefer", "wait=3600");
    let waiting = waiting.body("".into()).expect("a request");
    assert!(send(gateway.address, waiting).await.is_unfinished());
    upstream.next().await.ok("").await;
}

#[tokio::test]
async fn max_calls_queues_further_jobs() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--max-calls", "1"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let first = post(gateway.address, "/first", "").await.job();
    let mut received = upstream.next().await;
    let second = post(gateway.address, "/second", "").await.job();
    let document = get(gateway.address, &second).await.json();
    assert_eq!(document["status"], "queued");
    // A call ends with its body, not with its head.
    received
        .write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\no")
        .await;
    let document = get(gateway.address, &second).await.json();
    assert_eq!(document["status"], "queued");
    received.answer("ne").await;
    assert_eq!(result(gateway.address, &first).await.body.len(), 3);
    let received = upstream.next().await;
    assert_eq!(received.line, "POST /second HTTP/1.1");
    received.ok("").await;
    ended(gateway.address, &second).await;
}
