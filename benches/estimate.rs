//! What estimates are worth: how often clients poll that obey `Retry-After`, and how late they learn of an
//! end, beside others.
//!
//! `cargo bench --bench estimate` prints the table of `src/guide/estimate.md` and draws `docs/estimate.svg`.
//! Jobs run behind the layer as it is, on a clock that is advanced as fast as it goes.

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

/// What a poll may cost, in seconds: one point of a curve each.
const POLL_COSTS: [f64; 13] = [
    0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0,
];

/// The same for the oracle, whose curve is to be fine.
const ORACLE_COSTS: [f64; 16] = [
    1e-5, 0.001, 0.003, 0.01, 0.03, 0.07, 0.15, 0.3, 0.6, 1.0, 1.8, 3.0, 6.0, 12.0, 25.0, 50.0,
];

/// How near to polling each second counts as being there, in seconds: nobody who waits whole seconds is less late.
const NEAR: f64 = 0.01;

/// The registry's default.
const DEFAULT_COST: f64 = 1.0;

/// How many jobs are seen before any is counted, and how many there are in all.
const WARM_UP: usize = 50;
const JOBS: usize = 250;

/// Not those that the estimates were tuned with.
const SEEDS: std::ops::Range<u64> = 20_261_124..20_261_136;

const RIVALS: [(&str, Client); 3] = [
    ("every 1 s", Client::Every(1)),
    ("every 10 s", Client::Every(10)),
    ("back-off", Client::BackOff),
];

fn main() {
    // As a test, it is only tried.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let seeds = if is_test {
        SEEDS.start..SEEDS.start + 1
    } else {
        SEEDS
    };
    let seeds: Vec<u64> = seeds.collect();
    let mut charts = Vec::new();
    println!(
        "| durations | client | polls | late, s | at equal polls: ours | oracle | as late: our polls |"
    );
    println!("|---|---|---|---|---|---|---|");
    for scenario in Scenario::ALL {
        charts.push(against_the_oracle(scenario, &seeds));
    }
    charts.push(in_a_queue(&seeds));
    charts.push(with_progress(&seeds));
    println!("\n| durations | jobs | ours: polls | late, s | back-off: polls | late, s |");
    println!("|---|---|---|---|---|---|");
    for scenario in Scenario::ALL {
        before_much_is_known(scenario, &seeds);
    }
    if !is_test {
        let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/estimate.svg");
        draw(&charts, &to).expect("a file");
        println!("\ndrawn: {}", to.display());
    }
}

/// Of many runs: what each job that counts came to, on the average.
fn mean(
    seeds: &[u64],
    works: impl Fn(u64) -> Vec<Work>,
    places: usize,
    poll_cost: f64,
    client: &Client,
    counted: std::ops::Range<usize>,
) -> Point {
    let runs = seeds.iter().flat_map(|&seed| {
        let poll_cost = Duration::from_secs_f64(poll_cost);
        let seen = simulate(&works(seed), places, poll_cost, client);
        seen[counted.clone()].to_vec()
    });
    Point::mean(&runs.collect::<Vec<_>>())
}

fn after_warm_up(
    seeds: &[u64],
    works: impl Fn(u64) -> Vec<Work>,
    places: usize,
    poll_cost: f64,
    client: &Client,
) -> Point {
    mean(seeds, works, places, poll_cost, client, WARM_UP..JOBS)
}

fn one_after_another(scenario: Scenario, seed: u64) -> Vec<Work> {
    let durations = scenario.durations(JOBS, seed);
    let work = |takes| Work {
        comes: None,
        takes,
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
        after_warm_up(seeds, works, 1, cost, &Client::Knowing(Arc::new(knowing)))
    });
    let by_default = after_warm_up(seeds, works, 1, DEFAULT_COST, &Client::Obedient);
    let oracle = Curve::of(oracle.to_vec());
    let ratios = ours.map(|point| oracle.late_at(point.polls).map(|late| point.late / late));
    let curve = Curve::of(ours.to_vec());
    let name = scenario.name();
    row(name, "ours, by default", by_default, None, Some(&oracle));
    let points = RIVALS.map(|(rival, client)| {
        let point = after_warm_up(seeds, works, 1, DEFAULT_COST, &client);
        row(name, rival, point, Some(&curve), Some(&oracle));
        (rival, point)
    });
    let [(_, each_second), ..] = points;
    let near = curve.polls_for(each_second.late + NEAR);
    let near = near.map(|polls| format!("{polls:.1}")).unwrap_or_default();
    println!("| {name} | within {NEAR} s of every 1 s | | | | | {near} |");
    let shown = ratios.iter().flatten().map(|ratio| format!("{ratio:.2}"));
    println!(
        "| {name} | ours ÷ oracle at equal polls, for each poll cost | | | {} | | |",
        shown.collect::<Vec<_>>().join(" ")
    );
    Chart {
        title: format!("{name}: jobs {} to {JOBS}", WARM_UP + 1),
        curves: vec![("Retry-After", curve), ("oracle", oracle)],
        points: points.to_vec(),
        default: by_default,
    }
}

/// Two jobs at a time, and so many that they have to wait.
fn in_a_queue(seeds: &[u64]) -> Chart {
    const PLACES: usize = 2;
    let works = |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let mut now = 0.0;
        let work = |_| {
            now -= 13.0 * (1.0 - random.random::<f64>()).ln();
            let takes = 20.0 * (0.3 * normal(&mut random)).exp();
            Work {
                comes: Some(now),
                takes,
                pace: None,
            }
        };
        (0..JOBS).map(work).collect::<Vec<_>>()
    };
    let name = "in a queue";
    let ours = POLL_COSTS.map(|cost| after_warm_up(seeds, works, PLACES, cost, &Client::Obedient));
    let by_default = after_warm_up(seeds, works, PLACES, DEFAULT_COST, &Client::Obedient);
    row(name, "ours, by default", by_default, None, None);
    let curve = Curve::of(ours.to_vec());
    let points = RIVALS.map(|(rival, client)| {
        let point = after_warm_up(seeds, works, PLACES, DEFAULT_COST, &client);
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

/// Durations of which little can be said beforehand, of jobs that tell how far they are; if not evenly.
fn with_progress(seeds: &[u64]) -> Chart {
    let works = |tells: bool| {
        move |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            let work = |_| Work {
                comes: None,
                takes: 30.0 * (0.9 * normal(&mut random)).exp(),
                pace: Some((0.2 * normal(&mut random)).exp()).filter(|_| tells),
            };
            (0..JOBS).map(work).collect::<Vec<_>>()
        }
    };
    let name = "with progress";
    let curve = |tells| {
        let points =
            POLL_COSTS.map(|cost| after_warm_up(seeds, works(tells), 1, cost, &Client::Obedient));
        Curve::of(points.to_vec())
    };
    let (told, untold) = (curve(true), curve(false));
    let by_default = |tells| after_warm_up(seeds, works(tells), 1, DEFAULT_COST, &Client::Obedient);
    let default = by_default(true);
    row(name, "ours, by default", default, None, None);
    row(
        name,
        "ours, were none told",
        by_default(false),
        Some(&told),
        None,
    );
    let points = RIVALS.map(|(rival, client)| {
        let point = after_warm_up(seeds, works(true), 1, DEFAULT_COST, &client);
        row(name, rival, point, Some(&told), None);
        (rival, point)
    });
    Chart {
        title: "with progress: a median of 30 s, σ 0.9".to_owned(),
        curves: vec![("Retry-After", told), ("the same, were none told", untold)],
        points: points.to_vec(),
        default,
    }
}

/// The first jobs, by default.
fn before_much_is_known(scenario: Scenario, seeds: &[u64]) {
    let works = |seed| one_after_another(scenario, seed)[..WARM_UP].to_vec();
    for counted in [0..8, 8..20, 20..WARM_UP] {
        let of = |client| mean(seeds, works, 1, DEFAULT_COST, &client, counted.clone());
        let (ours, theirs) = (of(Client::Obedient), of(Client::BackOff));
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
