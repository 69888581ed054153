//! The example `hyper_bare`.

use http::StatusCode;

use crate::{
    client::{ended, get, post, result},
    program::Program,
};

/// More words than a test can wait for.
const MANY_WORDS: &str = include_str!("../../LICENSE");

#[tokio::test]
async fn job_counts_words() {
    let server = Program::start("hyper_bare", &["127.0.0.1:0"]).await;
    let job = post(server.address, "/", "word").await.job();
    assert_eq!(ended(server.address, &job).await["status"], "succeeded");
    assert_eq!(result(server.address, &job).await.body, "1 words\n");
}

#[tokio::test]
async fn monitor_shows_the_progress() {
    let server = Program::start("hyper_bare", &["127.0.0.1:0"]).await;
    let job = post(server.address, "/", MANY_WORDS).await.job();
    let message = loop {
        let answer = get(server.address, &job).await;
        assert!(answer.is_unfinished(), "{answer:?}");
        match answer.json()["message"].as_str() {
            Some(message) if !message.starts_with("0 of") => break message.to_owned(),
            _ => {}
        }
    };
    let words = MANY_WORDS.split_whitespace().count();
    assert!(
        message.ends_with(&format!(" of {words} words")),
        "{message}"
    );
}

#[tokio::test]
async fn ctrl_c_waits_for_the_running_job() {
    let mut server = Program::start("hyper_bare", &["127.0.0.1:0"]).await;
    let job = post(server.address, "/", MANY_WORDS).await.job();
    server.signal("INT").await;
    assert_eq!(server.line().await.as_deref(), Some("waiting for 1 jobs"));
    assert!(get(server.address, &job).await.is_unfinished());
    let refused = loop {
        // The example prints the line just before the drain begins.
        let answer = post(server.address, "/", "").await;
        if answer.status != StatusCode::ACCEPTED {
            break answer;
        }
    };
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    post(server.address, &format!("{job}/cancel"), "").await;
    let last = server.line().await;
    assert_eq!(
        last.as_deref(),
        Some("0 jobs cut, connections closed: true")
    );
    assert_eq!(server.ended().await.code(), Some(0));
}
