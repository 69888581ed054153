//! Whatever a service produces, the stream, the result and offsets agree.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use proptest::{collection::vec, prelude::*};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::Jobs;

use crate::{producing::*, support::*};

/// Splits `output` at random, and ends it in one of three ways.
#[derive(Debug, Clone)]
struct Case {
    chunks: Vec<Vec<u8>>,
    pauses: Vec<bool>,
    offsets: Vec<usize>,
    has_trailers: bool,
    breaks: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let length = prop_oneof![4 => 0_usize..40, 1 => 60_000_usize..200_000];
    let chunk = length.prop_flat_map(|length| vec(any::<u8>(), length..=length));
    (
        vec(chunk, 0..6),
        vec(any::<bool>(), 6),
        vec(0_usize..400_000, 3),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(chunks, pauses, offsets, has_trailers, breaks)| Case {
            chunks,
            pauses,
            offsets,
            has_trailers,
            breaks,
        })
}

async fn check(case: Case) {
    let script = Script::default();
    let jobs = Jobs::builder().max_result(16 << 20).build();
    let service = jobs.layer().layer(script.service());
    let producer = script.respond(text());
    let accepted = send(&service, post("/")).await;
    let path = stream_path(&accepted);
    let mut readers = Vec::new();
    let mut written = Vec::new();
    for (chunk, pause) in case.chunks.iter().zip(&case.pauses) {
        producer.send(chunk.clone());
        written.extend_from_slice(chunk);
        if *pause {
            tokio::task::yield_now().await;
            sleep(Duration::from_millis(1)).await;
            for offset in &case.offsets {
                let offset = offset % (written.len() + 1);
                let request = get(&format!("{path}?offset={offset}"));
                readers.push((offset, open(&service, request).await));
            }
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", written.len().into());
    match (case.breaks, case.has_trailers) {
        (true, _) => producer.fail(),
        (false, true) => producer.end_with(trailers.clone()),
        (false, false) => drop(producer),
    }
    ended(&service, &accepted).await;
    for offset in case.offsets {
        let offset = offset % (written.len() + 1);
        let request = get(&format!("{path}?offset={offset}"));
        readers.push((offset, open(&service, request).await));
    }
    for (offset, reader) in readers {
        assert_eq!(reader.status, StatusCode::OK);
        let (rest, is_broken) = reader.rest().await;
        assert!(
            rest == written[offset..],
            "from {offset}: {} bytes",
            rest.len()
        );
        assert_eq!(is_broken, case.breaks);
    }
    let kept = result(&service, &accepted).await;
    if case.breaks {
        assert_eq!(kept.status, StatusCode::INTERNAL_SERVER_ERROR);
    } else {
        assert!(kept.body == written);
        let expected = case.has_trailers.then_some(trailers);
        assert_eq!(kept.trailers, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn stream_result_and_offsets_agree(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(check(case));
    }
}

/// The number of times that a reader is cut off.
const CUTS: usize = 1_000;

/// Reads at most `length` bytes, as a client does whose connection is cut then.
async fn read_until_cut(response: &mut Streamed, length: usize) -> (Vec<u8>, bool) {
    let mut read = Vec::new();
    while read.len() < length {
        match response.body.frame().await {
            Some(frame) => {
                let data = frame.unwrap().into_data().unwrap();
                let rest = length - read.len();
                read.extend_from_slice(&data[..rest.min(data.len())]);
            }
            None => return (read, true),
        }
    }
    (read, false)
}

#[tokio::test(start_paused = true)]
async fn cut_reader_resumes_at_its_byte() {
    let mut random = StdRng::seed_from_u64(18);
    let service = Jobs::new().layer();
    let script = Script::default();
    let service = service.layer(script.service());
    let mut cuts = 0;
    while cuts < CUTS {
        let producer = script.respond(text());
        let accepted = send(&service, post("/")).await;
        let path = stream_path(&accepted);
        let chunks: Vec<Vec<u8>> = (0..50)
            .map(|_| {
                (0..random.random_range(0..9_000))
                    .map(|_| random.random())
                    .collect()
            })
            .collect();
        let whole = chunks.concat();
        tokio::spawn(async move {
            for chunk in chunks {
                producer.send(chunk);
                sleep(Duration::from_millis(1)).await;
            }
        });
        let mut read = Vec::new();
        loop {
            let request = get(&format!("{path}?offset={}&run=1", read.len()));
            let mut response = open(&service, request).await;
            assert_eq!(response.status, StatusCode::OK);
            let length = random.random_range(0..20_000);
            let (more, is_whole) = read_until_cut(&mut response, length).await;
            read.extend_from_slice(&more);
            if is_whole {
                break;
            }
            cuts += 1;
        }
        assert!(read == whole, "{} of {} bytes", read.len(), whole.len());
    }
}

/// Returns the data of the complete events, and the last id, as an `EventSource` has them.
fn parse_events(text: &[u8]) -> (Vec<String>, Option<String>) {
    let text = String::from_utf8_lossy(text);
    let (mut all, mut id) = (Vec::new(), None);
    let complete = text.rfind("\n\n").map_or(0, |at| at + 2);
    for event in text[..complete].split_terminator("\n\n") {
        for line in event.lines() {
            match line.split_once(": ") {
                Some(("data", data)) => all.push(data.to_owned()),
                Some(("id", of_event)) => id = Some(of_event.to_owned()),
                _ => {}
            }
        }
    }
    (all, id)
}

#[tokio::test(start_paused = true)]
async fn cut_event_source_gets_each_event_once() {
    let mut random = StdRng::seed_from_u64(19);
    let script = Script::default();
    let service = Jobs::new().layer().layer(script.service());
    let mut cuts = 0;
    while cuts < CUTS {
        let producer = script.respond(events());
        let accepted = send(&service, post("/")).await;
        let path = format!("{}?ids", stream_path(&accepted));
        let events: Vec<_> = (0..200).map(|number| format!("event {number}")).collect();
        let sent = events.clone();
        tokio::spawn(async move {
            for (number, event) in sent.iter().enumerate() {
                let id = if number % 7 == 3 {
                    format!("id: own {number}\n")
                } else {
                    String::new()
                };
                let comment = if number % 5 == 0 { ": quiet\n\n" } else { "" };
                producer.send(format!("{comment}{id}data: {event}\n\n"));
                sleep(Duration::from_millis(1)).await;
            }
        });
        let (mut received, mut last_id) = (Vec::new(), None::<String>);
        loop {
            let mut request = get(&path);
            if let Some(id) = &last_id {
                request = with(request, &[("last-event-id", id)]);
            }
            let mut response = open(&service, request).await;
            if response.status == StatusCode::NO_CONTENT {
                break;
            }
            let length = random.random_range(0..1_500);
            let (text, _) = read_until_cut(&mut response, length).await;
            let (more, id) = parse_events(&text);
            received.extend(more);
            last_id = id.or(last_id);
            cuts += 1;
        }
        assert_eq!(received, events);
    }
}
