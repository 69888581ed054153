//! Compares clients that obey `Retry-After` with other polling clients.
//!
//! For each client it measures the number of polls and how late the client learns of the end. Jobs
//! run behind the real layer on a paused clock. `cargo bench --bench estimate` prints the tables
//! of `src/guide/estimate.md` and draws `docs/estimate.svg`.

mod simulation;

use std::{path::Path, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::simulation::{
    Client, Work,
    curve::{Curve, Point},
    oracle::Oracle,
    plot::{Chart, draw},
    scenario::{Scenario, normal},
    simulate,
};

/// The poll costs in seconds; each is a point of the curve.
const POLL_COSTS: [f64; 13] = [
    0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0,
];

/// The poll costs of the oracle, which needs a finer curve.
const ORACLE_COSTS: [f64; 16] = [
    1e-5, 0.001, 0.003, 0.01, 0.03, 0.07, 0.15, 0.3, 0.6, 1.0, 1.8, 3.0, 6.0, 12.0, 25.0, 50.0,
];

/// In seconds. A client this close to polling every second is as good as it gets: no client with
/// whole-second delays is less late.
const TOLERANCE_SECONDS: f64 = 0.01;

/// The default of the registry, in seconds.
const DEFAULT_COST: f64 = 1.0;

/// The jobs that come before any is counted.
const WARM_UP_JOBS: usize = 50;

/// All jobs, with the warm-up.
const JOBS: usize = 250;

/// Seeds that were not used for tuning.
const SEEDS: std::ops::Range<u64> = 20_261_124..20_261_136;

const RIVALS: [(&str, Client); 3] = [
    ("every 1 s", Client::Every(1)),
    ("every 10 s", Client::Every(10)),
    ("backoff", Client::Backoff),
];

fn main() {
    // A test runs one seed.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let seeds = if is_test {
        SEEDS.start..SEEDS.start + 1
    } else {
        SEEDS
    };
    let seeds: Vec<u64> = seeds.collect();
    let mut charts = Vec::new();
    println!(
        "| workload | client | polls | late, s \
         | `Retry-After` late | oracle late | `Retry-After` polls |"
    );
    println!("|---|---|---|---|---|---|---|");
    for scenario in Scenario::ALL {
        charts.push(against_the_oracle(scenario, &seeds));
    }
    charts.push(in_a_queue(&seeds));
    charts.push(with_progress(&seeds));
    println!("\n| workload | jobs | `Retry-After`: polls | late, s | backoff: polls | late, s |");
    println!("|---|---|---|---|---|---|");
    for scenario in Scenario::ALL {
        first_jobs(scenario, &seeds);
    }
    if !is_test {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/estimate.svg");
        draw(&charts, &path).expect("writable file");
        println!("\nwrote {}", path.display());
    }
}

/// Returns the mean polls and lateness of the counted jobs over many runs.
fn mean(
    seeds: &[u64],
    works: impl Fn(u64) -> Vec<Work>,
    concurrency: usize,
    poll_cost: f64,
    client: &Client,
    counted: std::ops::Range<usize>,
) -> Point {
    let runs = seeds.iter().flat_map(|&seed| {
        let poll_cost = Duration::from_secs_f64(poll_cost);
        let points = simulate(&works(seed), concurrency, poll_cost, client);
        points[counted.clone()].to_vec()
    });
    Point::mean(&runs.collect::<Vec<_>>())
}

fn after_warm_up(
    seeds: &[u64],
    works: impl Fn(u64) -> Vec<Work>,
    concurrency: usize,
    poll_cost: f64,
    client: &Client,
) -> Point {
    mean(
        seeds,
        works,
        concurrency,
        poll_cost,
        client,
        WARM_UP_JOBS..JOBS,
    )
}

fn one_after_another(scenario: Scenario, seed: u64) -> Vec<Work> {
    let durations = scenario.durations(JOBS, seed);
    let work = |run_time| Work {
        arrival: None,
        run_time,
        pace: None,
    };
    durations.into_iter().map(work).collect()
}

fn against_the_oracle(scenario: Scenario, seeds: &[u64]) -> Chart {
    let works = |seed| one_after_another(scenario, seed);
    let ours = POLL_COSTS.map(|cost| after_warm_up(seeds, works, 1, cost, &Client::Obedient));
    let oracle = ORACLE_COSTS.map(|cost| {
        let known = if scenario.changes() { JOBS } else { 1 };
        let oracles: Vec<Oracle> = (0..known)
            .map(|job| Oracle::new(scenario, job, cost))
            .collect();
        let knowing = move |job: usize, age| oracles[job % oracles.len()].next(age);
        after_warm_up(seeds, works, 1, cost, &Client::Oracle(Arc::new(knowing)))
    });
    let by_default = after_warm_up(seeds, works, 1, DEFAULT_COST, &Client::Obedient);
    let oracle = Curve::new(oracle.to_vec());
    let ratios = ours.map(|point| oracle.late_at(point.polls).map(|late| point.late / late));
    let curve = Curve::new(ours.to_vec());
    let name = scenario.name();
    row(name, "`Retry-After`", by_default, None, Some(&oracle));
    let points = RIVALS.map(|(rival, client)| {
        let point = after_warm_up(seeds, works, 1, DEFAULT_COST, &client);
        row(name, rival, point, Some(&curve), Some(&oracle));
        (rival, point)
    });
    let [(_, each_second), ..] = points;
    let near = curve.polls_for(each_second.late + TOLERANCE_SECONDS);
    let near = near.map(|polls| format!("{polls:.1}")).unwrap_or_default();
    println!("| {name} | at most {TOLERANCE_SECONDS} s later than every 1 s | | | | | {near} |");
    let shown = ratios.iter().flatten().map(|ratio| format!("{ratio:.2}"));
    println!(
        "| {name} | late, ratio to the oracle at equal polls | | | {} | | |",
        shown.collect::<Vec<_>>().join(" ")
    );
    Chart {
        title: format!("{name}: jobs {} to {JOBS}", WARM_UP_JOBS + 1),
        curves: vec![("Retry-After", curve), ("oracle", oracle)],
        points: points.to_vec(),
        default: by_default,
    }
}

/// Two jobs run at a time, and others wait.
fn in_a_queue(seeds: &[u64]) -> Chart {
    const CONCURRENCY: usize = 2;
    let works = |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let mut now = 0.0;
        let work = |_| {
            now -= 13.0 * (1.0 - random.random::<f64>()).ln();
            let run_time = 20.0 * (0.3 * normal(&mut random)).exp();
            Work {
                arrival: Some(now),
                run_time,
                pace: None,
            }
        };
        (0..JOBS).map(work).collect::<Vec<_>>()
    };
    let name = "in a queue";
    let ours =
        POLL_COSTS.map(|cost| after_warm_up(seeds, works, CONCURRENCY, cost, &Client::Obedient));
    let by_default = after_warm_up(seeds, works, CONCURRENCY, DEFAULT_COST, &Client::Obedient);
    row(name, "`Retry-After`", by_default, None, None);
    let curve = Curve::new(ours.to_vec());
    let points = RIVALS.map(|(rival, client)| {
        let point = after_warm_up(seeds, works, CONCURRENCY, DEFAULT_COST, &client);
        row(name, rival, point, Some(&curve), None);
        (rival, point)
    });
    Chart {
        title: "in a queue: 20 s of work, 2 at a time, 80 % busy".to_owned(),
        curves: vec![("Retry-After", curve)],
        points: points.to_vec(),
        default: by_default,
    }
}

/// Durations vary widely, but jobs report progress, at an uneven pace.
fn with_progress(seeds: &[u64]) -> Chart {
    let works = |reports: bool| {
        move |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            let work = |_| Work {
                arrival: None,
                run_time: 30.0 * (0.9 * normal(&mut random)).exp(),
                pace: Some((0.2 * normal(&mut random)).exp()).filter(|_| reports),
            };
            (0..JOBS).map(work).collect::<Vec<_>>()
        }
    };
    let name = "with progress";
    let curve = |reports| {
        let points =
            POLL_COSTS.map(|cost| after_warm_up(seeds, works(reports), 1, cost, &Client::Obedient));
        Curve::new(points.to_vec())
    };
    let (reported, unreported) = (curve(true), curve(false));
    let by_default =
        |reports| after_warm_up(seeds, works(reports), 1, DEFAULT_COST, &Client::Obedient);
    let default = by_default(true);
    row(name, "`Retry-After`", default, None, None);
    row(
        name,
        "`Retry-After`, progress not reported",
        by_default(false),
        Some(&reported),
        None,
    );
    let points = RIVALS.map(|(rival, client)| {
        let point = after_warm_up(seeds, works(true), 1, DEFAULT_COST, &client);
        row(name, rival, point, Some(&reported), None);
        (rival, point)
    });
    Chart {
        title: "with progress: a median of 30 s, σ 0.9".to_owned(),
        curves: vec![
            ("Retry-After", reported),
            ("progress not reported", unreported),
        ],
        points: points.to_vec(),
        default,
    }
}

/// The first jobs of a kind, at the default poll cost.
fn first_jobs(scenario: Scenario, seeds: &[u64]) {
    let works = |seed| one_after_another(scenario, seed)[..WARM_UP_JOBS].to_vec();
    for counted in [0..8, 8..20, 20..WARM_UP_JOBS] {
        let measure = |client| mean(seeds, works, 1, DEFAULT_COST, &client, counted.clone());
        let (ours, theirs) = (measure(Client::Obedient), measure(Client::Backoff));
        println!(
            "| {} | {} to {} | {:.1} | {:.2} | {:.1} | {:.2} |",
            scenario.name(),
            counted.start + 1,
            counted.end,
            ours.polls,
            ours.late,
            theirs.polls,
            theirs.late,
        );
    }
}

fn row(name: &str, client: &str, point: Point, ours: Option<&Curve>, oracle: Option<&Curve>) {
    let late_at = |curve: Option<&Curve>| {
        let late = curve.and_then(|curve| curve.late_at(point.polls));
        late.map(|late| format!("{late:.2}")).unwrap_or_default()
    };
    let polls = ours.and_then(|curve| curve.polls_for(point.late));
    let polls = polls.map(|polls| format!("{polls:.1}")).unwrap_or_default();
    println!(
        "| {name} | {client} | {:.1} | {:.2} | {} | {} | {polls} |",
        point.polls,
        point.late,
        late_at(ours),
        late_at(oracle),
    );
}
