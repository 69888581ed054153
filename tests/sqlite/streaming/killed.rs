//! Producers that are killed (`kill -9`) while clients read what they produce.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::sleep;
use tower_accepted::{Jobs, store::sqlite::SqliteStore};

use super::{
    producer::{Role, TAG, accepted, outputs, start_producer, tagged},
    resuming::{Read, read_in_pieces},
};
use crate::{
    chaos::shared::number,
    site::{Home, files_below, layered, options, outcome, quick, until, wait_for_end, work},
    suites::routes::Outer,
    support::{get, send},
};

/// The number of cases, unless the environment sets it.
const CASES: u64 = 50;

const SEED: u64 = 5;

/// The number of files of jobs, each with a case at a time.
const FILES: u64 = 4;

/// The clients of each job.
const CLIENTS: usize = 3;

/// The longest time before a producer is killed, in milliseconds.
const MAX_LIFE_MS: u64 = 200;

/// The longest output of a call that completes.
const MAX_BYTES: usize = 600_000;

/// The outputs that all clients have read.
#[derive(Debug, Default)]
struct Tally {
    wholes: usize,
    parts: usize,
    nothings: usize,
    bytes: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_producer_leaves_a_part_of_one_run() {
    let cases = number("ACCEPTED_STREAM_CASES").unwrap_or(CASES);
    let seed = number("ACCEPTED_STREAM_SEED").unwrap_or(SEED);
    let begun = Instant::now();
    let files = (0..FILES.min(cases)).map(|file| {
        let cases = (file..cases).step_by(FILES as usize);
        run_cases(cases.map(move |case| seed.wrapping_add(case << 32)))
    });
    let mut all = Tally::default();
    for tally in join_all(files).await {
        all.wholes += tally.wholes;
        all.parts += tally.parts;
        all.nothings += tally.nothings;
        all.bytes += tally.bytes;
    }
    println!(
        "ACCEPTED_STREAM_SEED={seed}, {cases} cases in {:.1} s: {all:?}",
        begun.elapsed().as_secs_f64()
    );
    assert!(all.parts > 0 && all.wholes > 0, "{all:?}");
}

/// Runs cases one after the other on one file.
async fn run_cases(seeds: impl Iterator<Item = u64>) -> Tally {
    let home = Home::new(options());
    let jobs = home.jobs().await;
    let site = layered(&jobs, quick());
    let mut tally = Tally::default();
    for seed in seeds {
        println!("case with seed {seed} begins");
        run_case(&home, &jobs, &site, seed, &mut tally).await;
    }
    audit(&home);
    tally
}

async fn run_case(
    home: &Home,
    jobs: &Jobs<SqliteStore>,
    site: &Outer,
    seed: u64,
    tally: &mut Tally,
) {
    let mut random = StdRng::seed_from_u64(seed);
    let life = async |random: &mut StdRng| {
        let life = random.random_range(0..MAX_LIFE_MS);
        sleep(Duration::from_millis(life)).await;
    };
    let mut producer = start_producer(home.directory(), Role::Accept, seed);
    until(async || accepted(home.directory(), seed).is_some()).await;
    let [again, once] = accepted(home.directory(), seed).expect("two jobs");
    let mut clients = Vec::new();
    for index in 0..2 * CLIENTS {
        let location = if index % 2 == 0 { &again } else { &once };
        let reading = read_in_pieces(site.clone(), location.clone(), random.random());
        clients.push(tokio::spawn(reading));
    }
    life(&mut random).await;
    producer.kill();
    if random.random() {
        // The second run is killed too.
        let mut producer = start_producer(home.directory(), Role::Work, random.random());
        life(&mut random).await;
        producer.kill();
    }
    let length = random.random_range(0..MAX_BYTES);
    let worker = work(jobs, outputs(random.random(), Some(length)));
    let mut read = Vec::new();
    for client in join_all(clients).await {
        read.push(client.expect("no panic"));
    }
    check_again(site, &again, length, &read).await;
    check_once(site, &once, &read).await;
    worker.abort();
    for read in read {
        match read {
            Read::Nothing => tally.nothings += 1,
            Read::Whole { length, .. } => {
                tally.wholes += 1;
                tally.bytes += length;
            }
            Read::Part { length } => {
                tally.parts += 1;
                tally.bytes += length;
            }
        }
    }
}

/// Checks the request that may run again: all clients have the output of its last run.
async fn check_again(site: &Outer, location: &str, length: usize, read: &[Read]) {
    assert_eq!(
        outcome(&wait_for_end(site, location).await.json()),
        "succeeded"
    );
    let result = send(site, get(&format!("{location}/result"))).await;
    let tag: u64 = result
        .header(TAG)
        .expect("a tag")
        .parse()
        .expect("a number");
    assert!(result.body == tagged(tag, 0, length), "another result");
    for read in read.iter().step_by(2) {
        let is_result = matches!(
            read,
            Read::Whole { tag: read, length: at } if (*read, *at) == (tag, length as u64)
        );
        assert!(is_result, "{read:?} of {length} bytes with tag {tag}");
    }
}

/// Checks the request that may not: it is lost, and all clients have the same part.
async fn check_once(site: &Outer, location: &str, read: &[Read]) {
    let document = wait_for_end(site, location).await.json();
    assert_eq!(outcome(&document), "lost", "{document}");
    let part = document["partial"]["contentLength"].as_u64();
    for read in read.iter().skip(1).step_by(2) {
        match read {
            Read::Whole { .. } => panic!("a lost job has a whole output: {read:?}"),
            Read::Part { length } => assert_eq!(Some(*length), part),
            Read::Nothing => assert_eq!(part, None),
        }
    }
}

/// Checks that rows and files belong to each other.
fn audit(home: &Home) {
    let orphans = "SELECT count(*) FROM part WHERE job NOT IN \
         (SELECT job FROM response WHERE body IS NULL)";
    assert_eq!(home.number(orphans), 0);
    // Parts are contiguous up to the file, or to the end.
    let lengths = "SELECT count(*) FROM response WHERE body IS NULL AND \
         iif(file IS NULL, length, file_start) <> \
         (SELECT coalesce(sum(length(part.body)), 0) FROM part WHERE part.job = response.job)";
    assert_eq!(home.number(lengths), 0);
    let bytes = "SELECT coalesce(sum(length - file_start), 0) FROM response \
         WHERE file IS NOT NULL";
    let counted = home.number("SELECT file_bytes FROM totals");
    assert_eq!(counted, home.number(bytes));
    let mut named = home.texts("SELECT file FROM response WHERE file IS NOT NULL");
    named.sort_unstable();
    let bodies = home.bodies();
    let files = files_below(&bodies).into_iter();
    let files = files.filter(|path| path.is_file() && !path.ends_with("lock"));
    let found: Vec<String> = files
        .map(|path| {
            path.strip_prefix(&bodies)
                .expect("below")
                .display()
                .to_string()
        })
        .collect();
    assert_eq!(found, named);
}
