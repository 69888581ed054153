//! The processes that produce outputs until they are killed.

use std::{
    env, fs,
    future::pending,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::sleep;

use crate::{
    chaos::shared::TestProcess,
    site::{boxed, layered, options, registry, work},
    suites::routes::Inner,
    support::{Body, post, request, send},
};
use tower_accepted::store::sqlite::SqliteStore;

/// The environment variables that start a producer.
const DIRECTORY: &str = "ACCEPTED_STREAM_DIRECTORY";
const SEED: &str = "ACCEPTED_STREAM_PRODUCER";

/// The name of [`producer_process`] in this binary.
const PRODUCER_TEST: &str = "streaming::producer::producer_process";

/// The field that names the bytes of an output.
pub(super) const TAG: &str = "x-tag";

/// The length at which an output stops to grow.
const MAX_BYTES: usize = 4 << 20;

/// The tasks of a producer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Accepts a request that may run again, and one that may not.
    Accept,
    /// Runs what waits.
    Work,
}

/// Starts a process that produces outputs that never end.
pub(super) fn start_producer(directory: &Path, role: Role, seed: u64) -> TestProcess {
    let log = directory.join("producers.log");
    let mut command = TestProcess::command(PRODUCER_TEST, &log);
    let role = if role == Role::Accept {
        "accept"
    } else {
        "work"
    };
    command
        .env(DIRECTORY, directory)
        .env(SEED, format!("{role} {seed}"));
    TestProcess::start(command)
}

/// Returns the paths of the two jobs of a producer, once it has accepted them.
pub(super) fn accepted(directory: &Path, seed: u64) -> Option<[String; 2]> {
    let text = fs::read_to_string(note(directory, seed)).ok()?;
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.try_into().ok()
}

fn note(directory: &Path, seed: u64) -> PathBuf {
    directory.join(format!("accepted-{seed}"))
}

/// Produces outputs if the environment says so. This is no test: [`start_producer`] starts it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the tests of killed producers start it"]
async fn producer_process() {
    let (Ok(directory), Ok(task)) = (env::var(DIRECTORY), env::var(SEED)) else {
        return;
    };
    let directory = Path::new(&directory);
    let (role, seed) = task.split_once(' ').expect("a role and a seed");
    let seed: u64 = seed.parse().expect("a number");
    let store = SqliteStore::open(directory.join("jobs.db"), options()).await;
    let jobs = registry(Default::default(), store.expect("the file opens"));
    let service = outputs(seed, None);
    if role == "accept" {
        let site = layered(&jobs, service);
        let mut locations = String::new();
        for request in [request("PUT", "/again"), post("/once")] {
            let answer = send(&site, request).await;
            locations = locations + answer.location() + "\n";
        }
        let unfinished = directory.join(format!("accepting-{seed}"));
        fs::write(&unfinished, locations).expect("a file");
        fs::rename(unfinished, note(directory, seed)).expect("a file");
        pending().await
    } else {
        let _worker = work(&jobs, service);
        pending().await
    }
}

/// Returns bytes that hardly any other place or output has.
pub(super) fn tagged(tag: u64, from: u64, length: usize) -> Vec<u8> {
    let bytes = (from..).take(length);
    bytes
        .map(|index| {
            let mut mixed = tag ^ (index / 8).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed.to_le_bytes()[(index % 8) as usize]
        })
        .collect()
}

/// Returns a service each of whose outputs has other bytes. They end after `length` bytes, if that
/// is set.
pub(super) fn outputs(seed: u64, length: Option<usize>) -> Inner {
    boxed(move |request| async move {
        // Each call has a number that nothing else has, and a pace that comes from the seed.
        let tag: u64 = rand::random();
        let is_again = request.uri().path() == "/again";
        let output = Produced {
            tag,
            offset: 0,
            length: length.unwrap_or(MAX_BYTES),
            ends: length.is_some(),
            random: StdRng::seed_from_u64(seed ^ u64::from(is_again)),
        };
        let body = Body::from_stream(stream::unfold(output, Produced::next));
        let response = Response::builder().header(TAG, tag.to_string());
        Ok(response.body(body).expect("a response"))
    })
}

struct Produced {
    tag: u64,
    offset: usize,
    length: usize,
    ends: bool,
    random: StdRng,
}

impl Produced {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        match self.random.random_range(0..10) {
            0..4 => {}
            4..7 => tokio::task::yield_now().await,
            _ => sleep(Duration::from_millis(self.random.random_range(0..8))).await,
        }
        let size = match self.random.random_range(0..100) {
            0..80 => self.random.random_range(1..300),
            80..97 => self.random.random_range(1..20_000),
            _ => self.random.random_range(1..700_000),
        };
        let size = size.min(self.length - self.offset);
        if size == 0 {
            if !self.ends {
                pending::<()>().await;
            }
            return None;
        }
        let part = tagged(self.tag, self.offset as u64, size);
        self.offset += size;
        Some((Ok(part.into()), self))
    }
}
