//! Whatever a service produces, the stream, the result and offsets agree.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use proptest::{collection::vec, prelude::*};
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
