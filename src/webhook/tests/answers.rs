//! Tests the request that the client sends, and the parts of an answer that it returns.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use httpdate::fmt_http_date;

use super::{
    receiver::{TlsReceiver, read_request},
    support::{client, loopback, post},
};
use crate::webhook::client::ReceiverAnswer;

const HOUR: Duration = Duration::from_secs(3600);

/// Returns what the client makes of an answer with this status and these fields.
async fn answer(head: &str) -> ReceiverAnswer {
    let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n");
    let receiver = TlsReceiver::answering(move |_, _| answer.clone()).await;
    let client = client(receiver.policy(), Some(&receiver.certificate), loopback());
    post(&client, &receiver.target()).await.expect("an answer")
}

#[tokio::test]
async fn receiver_gets_the_request_as_it_is() {
    let received = Arc::new(Mutex::new(None));
    let record = Arc::clone(&received);
    let receiver = TlsReceiver::start(move |_, mut stream| {
        let record = Arc::clone(&record);
        async move {
            let request = read_request(&mut stream).await?;
            *record.lock().unwrap() = request;
            Ok(())
        }
    })
    .await;
    let client = client(receiver.policy(), Some(&receiver.certificate), loopback());
    let headers = HeaderMap::from_iter(
        [
            ("webhook-id", "msg_1"),
            ("content-type", "application/json"),
            ("user-agent", "another"),
        ]
        .map(|(name, value)| {
            (
                name.parse().expect("a name"),
                HeaderValue::from_static(value),
            )
        }),
    );
    let body = Bytes::from_static(b"{\"type\":\"job.succeeded\"}");
    let target = receiver.target();
    let sent = client.send(&target, Method::POST, headers, body.clone());
    assert!(sent.await.is_err(), "it closes without an answer");
    let (head, content) = received.lock().unwrap().take().expect("a request");
    assert_eq!(content, body);
    let mut lines: Vec<_> = head.trim_end().lines().collect();
    lines[1..].sort_unstable();
    let host = format!("host: hooks.test:{}", receiver.port);
    let agent = format!("user-agent: tower-accepted/{}", env!("CARGO_PKG_VERSION"));
    let expected = [
        "post /hook?token=secret http/1.1",
        "content-length: 24",
        "content-type: application/json",
        &host,
        &agent,
        "webhook-id: msg_1",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn status_is_the_answer_whatever_it_is() {
    for status in [200, 204, 404, 410, 429, 500, 503, 599, 999] {
        let answer = answer(&format!("{status} X")).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.retry_after, None);
    }
}

#[tokio::test]
async fn retry_after_is_at_most_a_day() {
    let now = SystemTime::now();
    let dated = |delay| {
        let (date, until) = (fmt_http_date(now), fmt_http_date(now + delay));
        format!("503 X\r\ndate: {date}\r\nretry-after: {until}")
    };
    for (head, expected) in [
        ("503 X\r\nretry-after: 120".to_owned(), Some(HOUR / 30)),
        ("503 X\r\nretry-after: 86400".to_owned(), Some(24 * HOUR)),
        ("503 X\r\nretry-after: 86401".to_owned(), Some(24 * HOUR)),
        (
            format!("429 X\r\nretry-after: {}", "9".repeat(40)),
            Some(24 * HOUR),
        ),
        ("503 X\r\nretry-after: soon".to_owned(), None),
        (dated(HOUR), Some(HOUR)),
        (dated(48 * HOUR), Some(24 * HOUR)),
    ] {
        assert_eq!(answer(&head).await.retry_after, expected, "{head}");
    }
}
