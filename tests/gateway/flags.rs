//! Each flag of the gateway has the effect that its help describes.

use http::StatusCode;
use tokio::spawn;

use crate::{
    client::{Answer, ended, get, post, raw, request, result, send},
    program::{Program, command},
    upstream::Upstream,
};

pub(crate) async fn preferring(gateway: &Program, prefer: &str) -> Answer {
    let request = request("POST", "/reports").header("prefer", prefer);
    send(gateway.address, request.body("".into()).expect("a request")).await
}

#[tokio::test]
async fn monitor_moves_jobs_away_from_the_default_path() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--monitor", "/.well/done"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let job = post(gateway.address, "/reports", "").await.job();
    assert!(job.starts_with("/.well/done/"), "{job}");
    upstream.next().await.ok("report").await;
    assert_eq!(result(gateway.address, &job).await.body, "report");
    let answer = spawn(get_path(gateway.address, "/jobs/1"));
    upstream.next().await.ok("the server's own").await;
    assert_eq!(answer.await.expect("no panic").body, "the server's own");
}

async fn get_path(server: std::net::SocketAddr, path: &'static str) -> Answer {
    get(server, path).await
}

#[tokio::test]
async fn after_ms_limits_the_wait_for_an_inline_response() {
    let mut upstream = Upstream::start().await;
    // Even an immediate response takes longer than 0 ms, because of the connection.
    let gateway = Program::gateway(upstream.address, &["--after-ms", "0"]).await;
    let job = post(gateway.address, "/reports", "").await.job();
    upstream.next().await.ok("late").await;
    assert_eq!(result(gateway.address, &job).await.body, "late");

    let gateway = Program::gateway(upstream.address, &["--after-ms", "3600000"]).await;
    let answer = spawn(post(gateway.address, "/reports", ""));
    upstream.next().await.ok("in time").await;
    assert_eq!(answer.await.expect("no panic").body, "in time");
}

#[tokio::test]
async fn always_accepts_before_the_server_responds() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--always"]).await;
    let job = post(gateway.address, "/reports", "").await.job();
    let read = spawn(get_path(gateway.address, "/reports"));
    let (mut submitted, mut passed) = (upstream.next().await, upstream.next().await);
    if submitted.line.starts_with("GET") {
        std::mem::swap(&mut submitted, &mut passed);
    }
    passed.ok("read").await;
    assert_eq!(read.await.expect("no panic").body, "read");
    submitted.ok("written").await;
    assert_eq!(result(gateway.address, &job).await.body, "written");
}

#[tokio::test]
async fn preferred_leaves_the_choice_to_the_client() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--preferred"]).await;
    let answer = spawn(post(gateway.address, "/reports", ""));
    upstream.next().await.ok("inline").await;
    assert_eq!(answer.await.expect("no panic").body, "inline");

    let accepted = preferring(&gateway, "respond-async").await;
    let applied = accepted.header("preference-applied");
    assert_eq!(applied, Some("respond-async"));
    upstream.next().await.ok("later").await;
    let result = result(gateway.address, &accepted.job()).await;
    assert_eq!(result.body, "later");
}

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
async fn replay_cookies_keeps_cookies_in_the_result() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--replay-cookies"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let job = post(gateway.address, "/login", "").await.job();
    let cookies = "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
        Clear-Site-Data: \"cache\"\r\nContent-Length: 0\r\n\r\n";
    upstream.next().await.answer(cookies).await;
    let result = result(gateway.address, &job).await;
    assert_eq!(result.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(result.header("clear-site-data"), Some("\"cache\""));
}

#[tokio::test]
async fn dialect_selects_the_monitor_responses() {
    for (dialect, status) in [("default", 200), ("pending202", 418), ("see-other", 303)] {
        let mut upstream = Upstream::start().await;
        let flags = ["--always", "--dialect", dialect];
        let gateway = Program::gateway(upstream.address, &flags).await;
        let job = post(gateway.address, "/reports", "").await.job();
        let teapot = "HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n";
        upstream.next().await.answer(teapot).await;
        let waiting = request("GET", &job).header("prefer", "wait=30");
        let waiting = waiting
            .body(http_body_util::Full::default())
            .expect("a request");
        let answer = send(gateway.address, waiting).await;
        assert_eq!(answer.status, status, "{dialect}");
    }
}

#[tokio::test]
async fn get_with_a_preference_becomes_a_job() {
    let mut upstream = Upstream::start().await;
    let flags = ["--dialect", "pending202"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let export = request("GET", "/$export").header("prefer", "respond-async");
    let export = export.body("".into()).expect("a request");
    let job = send(gateway.address, export).await.job();
    upstream.next().await.ok("ndjson").await;
    let result = request("GET", &job).header("prefer", "wait=30");
    let result = result.body("".into()).expect("a request");
    assert_eq!(send(gateway.address, result).await.body, "ndjson");
}

#[tokio::test]
async fn links_and_public_base_set_the_form_of_links() {
    for (flags, prefix) in [
        (&["--always"][..], "/jobs/"),
        (&["--always", "--links", "relative"], "../jobs/"),
        (
            &["--always", "--public-base", "https://host.example/v1"],
            "https://host.example/v1/jobs/",
        ),
    ] {
        let upstream = Upstream::start().await;
        let gateway = Program::gateway(upstream.address, flags).await;
        let location = post(gateway.address, "/a/reports", "").await.job();
        let (start, _) = location.rsplit_once('/').expect("a path");
        assert_eq!(format!("{start}/"), prefix);
    }
}

#[tokio::test]
async fn require_key_rejects_a_request_without_a_key() {
    let upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--always", "--require-key"]).await;
    let refused = post(gateway.address, "/reports", "").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let keyed = async || {
        let request = request("POST", "/reports").header("idempotency-key", "key");
        let request = request.body(http_body_util::Full::default());
        send(gateway.address, request.expect("a request"))
            .await
            .job()
    };
    assert_eq!(keyed().await, keyed().await);
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
async fn idle_secs_closes_an_unused_connection() {
    let upstream = Upstream::start().await;
    let flags = ["--health", "/", "--idle-secs", "1"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    // `raw` reads until the gateway closes the connection.
    let answer = raw(gateway.address, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.ends_with("ok\n"), "{answer}");
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

#[tokio::test]
async fn key_keeps_only_the_chosen_outcomes() {
    for (keeps, is_kept) in [("all", true), ("success", false)] {
        let mut upstream = Upstream::start().await;
        let flags = ["--always", "--key-keeps", keeps];
        let gateway = Program::gateway(upstream.address, &flags).await;
        let keyed = async || {
            let request = request("POST", "/reports").header("idempotency-key", "key");
            let request = request.body("".into()).expect("a request");
            send(gateway.address, request).await.job()
        };
        let first = keyed().await;
        let broken = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
        upstream.next().await.answer(broken).await;
        ended(gateway.address, &first).await;
        assert_eq!(keyed().await == first, is_kept, "{keeps}");
    }
}

#[tokio::test]
async fn help_lists_every_flag_and_its_default() {
    let help = command("accepted-gateway")
        .arg("--help")
        .output()
        .await
        .expect("it runs");
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    for (flag, default) in [
        ("--upstream <URL>", None),
        ("--listen <ADDR>", Some("127.0.0.1:8080")),
        ("--health <PATH-PREFIX>", None),
        ("--metrics <ADDR>", None),
        ("--monitor <PATH>", Some("/jobs")),
        ("--after-ms <N>", Some("300")),
        ("--always", None),
        ("--preferred", None),
        ("--max-unfinished <N>", Some("10000")),
        ("--max-result <BYTES>", Some("16777216")),
        ("--retain-secs <N>", Some("3600")),
        ("--job-timeout-secs <N>", Some("3600")),
        ("--drain-secs <N>", Some("30")),
        ("--trust-forwarded", None),
        ("--cors-origin <ORIGIN>", None),
        ("--idle-secs <N>", Some("75")),
        ("--max-fields <N>", Some("100")),
        ("--max-calls <N>", None),
        ("--max-body <BYTES>", Some("2097152")),
        ("--max-wait-secs <N>", Some("50")),
        ("--replay-cookies", None),
        ("--dialect <NAME>", Some("default")),
        ("--links <FORM>", Some("path")),
        ("--public-base <URL>", None),
        ("--require-key", None),
        ("--key-keeps <OUTCOMES>", Some("all")),
        ("--owner-header <NAME>", None),
    ] {
        let (_, text) = help.split_once(&format!("      {flag}\n")).expect(flag);
        let text = text.split("\n      --").next().unwrap_or_default();
        match default {
            Some(default) => assert!(text.contains(&format!("[default: {default}]")), "{flag}"),
            None => assert!(!text.contains("[default"), "{flag}"),
        }
    }
}

#[tokio::test]
async fn invalid_flags_are_rejected_at_the_start() {
    for (flags, reason) in [
        (&["--upstream", "https://a"][..], "TLS is not supported"),
        (&["--upstream", "http://a/b"], "a path is not supported"),
        (&["--upstream", "http://a?b"], "a path is not supported"),
        (
            &["--upstream", "http://a:b@c"],
            "a user and a password are not supported",
        ),
        (
            &["--upstream", "localhost:80"],
            "expected http://HOST[:PORT]",
        ),
        (
            &["--upstream", "http://127.0.0.1:99999"],
            "expected http://HOST[:PORT]",
        ),
        (&["--upstream", "http://:80"], "expected http://HOST[:PORT]"),
        (&["--monitor", "jobs"], "expected a path"),
        (&["--monitor", "//jobs"], "expected a path"),
        (&["--monitor", "/a\"b"], "expected a path"),
        (&["--health", "//health"], "expected / or a path"),
        (
            &["--public-base", "https://a:99999"],
            "expected http(s)://HOST",
        ),
        (
            &["--public-base", "https://a/\""],
            "expected http(s)://HOST",
        ),
        (&["--cors-origin", "app.example"], "expected * or http(s)"),
        (&["--cors-origin", "null"], "expected * or http(s)"),
        (&["--key-keeps", "none"], "invalid value 'none'"),
        (&["--idle-secs", "0"], "0 is not in 1..=86400"),
        (&["--max-calls", "0"], "0 is not in 1.."),
        (&["--max-fields", "0"], "0 is not in 1..=20000"),
        (&["--monitor", "/jobs/"], "expected a path"),
        (&["--monitor", "/jo?bs"], "expected a path"),
        (&["--health", "health"], "expected / or a path"),
        (&["--health", "/health/"], "expected / or a path"),
        (
            &["--listen", "127.0.0.1:0", "--metrics", "192.0.2.1:1"],
            "cannot listen on 192.0.2.1:1: ",
        ),
        (&["--always", "--preferred"], "cannot be used with"),
        (&["--always", "--after-ms", "1"], "cannot be used with"),
        (&["--preferred", "--after-ms", "1"], "cannot be used with"),
        (&["--dialect", "klingon"], "invalid value 'klingon'"),
        (&["--public-base", "host"], "expected http(s)://HOST"),
        (
            &["--public-base", "http://a", "--links", "relative"],
            "cannot be used with",
        ),
        (&["--owner-header", "a b"], "expected the name of a header"),
        (&["--owner-header", "Host"], "expected a header that"),
        (&["--owner-header", "connection"], "expected a header that"),
        (&["--max-body", "0"], "0 is not in 1.."),
        (&["--max-unfinished", "0"], "0 is not in 1.."),
        (&["--drain-secs=-1"], "invalid value '-1'"),
        (
            &["--listen", "192.0.2.1:1"],
            "cannot listen on 192.0.2.1:1: ",
        ),
    ] {
        let output = command("accepted-gateway")
            .args(flags)
            .output()
            .await
            .expect("it runs");
        let error = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(!output.status.success(), "{flags:?}");
        assert!(error.contains(reason), "{flags:?}: {error}");
    }
}
