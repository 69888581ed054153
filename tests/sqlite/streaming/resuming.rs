//! A client that reads an output in pieces, and checks each of them.

use http::StatusCode;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    output::open_as,
    producer::{TAG, tagged},
};
use crate::{
    suites::routes::Outer,
    support::{get, send},
};

/// The output that a client has read when its job has ended.
#[derive(Debug)]
pub(super) enum Read {
    Nothing,
    /// A whole output.
    Whole {
        tag: u64,
        length: u64,
    },
    /// The part of an output that broke off.
    Part {
        length: u64,
    },
}

/// The output that a client has a part of.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    etag: String,
    tag: u64,
}

/// Reads the output of a job until the job has ended. Disconnects at random, and resumes at the
/// next byte. All bytes are those of one run, and those that were read once stay readable.
pub(super) async fn read_in_pieces(site: Outer, location: String, seed: u64) -> Read {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut at, mut known) = (0, None::<Known>);
    loop {
        let query = format!("?offset={at}");
        let etag = known
            .as_ref()
            .map(|known| ("if-match", known.etag.as_str()));
        let mut streamed = open_as(&site, &location, &query, etag.as_slice()).await;
        match streamed.status {
            StatusCode::OK => {}
            StatusCode::PRECONDITION_FAILED => {
                // It runs again: its bytes are others.
                (at, known) = (0, None);
                continue;
            }
            StatusCode::ACCEPTED => continue,
            _ => {
                let document = send(&site, get(&location)).await.json();
                assert_eq!(
                    document["status"], "failed",
                    "{document}, {known:?} at {at}"
                );
                assert_eq!((at, document["partial"].is_null()), (0, true), "{document}");
                return Read::Nothing;
            }
        }
        let found = Known {
            etag: streamed.header("etag").to_owned(),
            tag: streamed.header(TAG).parse().expect("a number"),
        };
        assert_eq!(known.get_or_insert_with(|| found.clone()), &found);
        let mut frames = random.random_range(0..40);
        let is_broken = loop {
            match streamed.frame().await {
                Ok(Some(data)) => {
                    let expected = tagged(found.tag, at, data.len());
                    assert!(data == expected, "other bytes at {at} of {location}");
                    at += data.len() as u64;
                }
                Ok(None) => {
                    let (tag, length) = (found.tag, at);
                    return Read::Whole { tag, length };
                }
                Err(()) => break true,
            }
            if frames == 0 {
                break false;
            }
            frames -= 1;
        };
        if is_broken {
            let document = send(&site, get(&location)).await.json();
            if document["status"] == "failed" {
                assert_eq!(document["partial"]["contentLength"], at, "{document}");
                return Read::Part { length: at };
            }
        }
    }
}
