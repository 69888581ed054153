//! Outputs that two processes read while one of them produces them.

use http::HeaderMap;

use super::output::{Streamed, open, pattern, produced};
use crate::{
    site::{Home, end, layered, options, quick},
    support::{get, post, send},
};

/// The sizes of parts that stay in rows, and of those that make the body a file.
const SMALL: [usize; 5] = [1, 20, 3_000, 70_000, 7];
const LARGE: [usize; 5] = [20, 300_000, 5, 1_200_000, 1];

/// Produces parts one by one. Each reader gets each of them before the next one is produced.
async fn read_step_by_step(sizes: [usize; 5], has_file: bool) {
    let home = Home::new(options());
    let (producer, service) = produced();
    let one = home.serve(service).await;
    let other = home.serve(quick()).await;
    let location = send(&one, post("/it")).await.location().to_owned();
    let mut length = 0;
    // Each with its offset. One begins before there is anything.
    let mut readers: Vec<(Streamed, usize)> = Vec::new();
    for (index, size) in sizes.into_iter().enumerate() {
        producer.send(pattern(length as u64, size));
        length += size;
        for site in [&one, &other] {
            for offset in [0, length / 2] {
                let streamed = open(site, &location, &format!("?offset={offset}")).await;
                assert_eq!(streamed.status, 200);
                readers.push((streamed, offset));
            }
        }
        for (reader, offset) in &mut readers {
            let part = reader.next(length - *offset).await;
            assert_eq!(part, pattern(*offset as u64, length - *offset));
            *offset = length;
        }
        if index == 0 {
            for (reader, _) in &mut readers {
                assert!(reader.is_silent().await, "it waits for more");
            }
        }
    }
    let unfinished = "SELECT count(*) FROM response WHERE is_complete = 0 AND file IS NOT NULL";
    assert_eq!(home.number(unfinished), i64::from(has_file));
    assert!(home.number("SELECT count(*) FROM part") > 0);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    producer.end_with(trailers.clone());
    for (reader, _) in readers {
        assert_eq!(reader.trailers().await, Some(trailers.clone()));
    }
    for site in [&one, &other] {
        assert_eq!(end(site, &location).await, "succeeded");
        let result = send(site, get(&format!("{location}/result"))).await;
        assert_eq!(result.body, pattern(0, length));
        assert_eq!(result.trailers, Some(trailers.clone()));
        let offset = length - 2;
        let (rest, is_broken) = open(site, &location, &format!("?offset={offset}"))
            .await
            .rest()
            .await;
        assert_eq!((rest, is_broken), (pattern(offset as u64, 2), false));
    }
}

#[tokio::test]
async fn both_processes_read_small_parts_as_they_come() {
    read_step_by_step(SMALL, false).await;
}

#[tokio::test]
async fn both_processes_read_a_large_body_as_it_comes() {
    read_step_by_step(LARGE, true).await;
}

#[tokio::test]
async fn reader_that_waits_for_the_head_gets_it() {
    let home = Home::new(options());
    let (producer, service) = produced();
    let one = home.serve(service).await;
    let other = home.serve(quick()).await;
    let location = send(&one, post("/it")).await.location().to_owned();
    // The service answers at once, without any data.
    for site in [&one, &other] {
        let streamed = open(site, &location, "").await;
        assert_eq!(streamed.header("content-type"), "text/plain");
        assert_eq!(streamed.header("asyncresult"), "200");
    }
    drop(producer);
    assert_eq!(end(&other, &location).await, "succeeded");
}

#[tokio::test]
async fn response_of_one_poll_is_one_row() {
    let home = Home::new(options());
    let jobs = home.jobs().await;
    let site = layered(&jobs, quick());
    let location = send(&site, post("/it")).await.location().to_owned();
    assert_eq!(end(&site, &location).await, "succeeded");
    let in_row = "SELECT count(*) FROM response WHERE body IS NOT NULL AND file IS NULL";
    assert_eq!(home.number(in_row), 1);
    assert_eq!(home.number("SELECT count(*) FROM part"), 0);
}

#[tokio::test]
async fn slow_reader_reads_on_after_the_end() {
    let home = Home::new(options());
    let (producer, service) = produced();
    let one = home.serve(service).await;
    let other = home.serve(quick()).await;
    let location = send(&one, post("/it")).await.location().to_owned();
    producer.send(pattern(0, 100));
    let mut readers = Vec::new();
    for site in [&one, &other] {
        let mut reader = open(site, &location, "").await;
        assert_eq!(reader.next(100).await, pattern(0, 100));
        readers.push(reader);
    }
    producer.send(pattern(100, 700_000));
    drop(producer);
    assert_eq!(end(&one, &location).await, "succeeded");
    for reader in readers {
        let (rest, is_broken) = reader.rest().await;
        assert!(!is_broken && rest == pattern(100, 700_000));
    }
}
