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
async fn idle_secs_closes_an_unused_connection() {
    let upstream = Upstream::start().await;
    let flags = ["--health", "/", "--idle-secs", "1"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    // `raw` reads until the gateway closes the connection.
    let answer = raw(gateway.address, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test]
async fn key_keeps_only_the_chosen_outcomes() {
    for (keeps, is_kept) in [("all", true), ("final", false)] {
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
        ("--shed-when-full", None),
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
