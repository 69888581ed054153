//! Power cuts, simulated: what was acknowledged survives them.
//!
//! A library that is loaded into a process of the workload records what it does to its files. At
//! many points of this log the power is cut: a model of a disk chooses what is left, and the store
//! must find all that it had acknowledged. Each fault that leaves out a sync must be found, too.
//!
//! `ACCEPTED_POWER_CUTS` sets the number of cuts, and `ACCEPTED_POWER_SEED` what they leave:
//!
//! `ACCEPTED_POWER_CUTS=3000 cargo test --all-features --test sqlite power -- --nocapture`

mod check;
mod disk;
mod history;
mod log;
mod recorder;
mod short_file;
mod strace;
mod workload;

use std::{env, fs, time::Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use self::{
    check::check,
    disk::{Disk, Mutant},
    history::PHASES,
    recorder::{Recording, fast_directory, recording},
};

/// The number of cuts, unless the environment sets it. Each phase has its share.
const CUTS: usize = 120;

/// The number of cuts within which each mutant must be found.
const MUTANT_CUTS: usize = 200;

const SEED: u64 = 202;

/// A cut after which the store broke a promise.
struct BrokenPromise {
    /// The number of cuts up to this one.
    cuts: usize,
    description: String,
}

/// Cuts the power so many times, as often in each phase. Stops at the first broken promise.
async fn cut_power(
    recording: &Recording,
    mutant: Option<Mutant>,
    cuts: usize,
    seed: u64,
) -> Result<(), BrokenPromise> {
    let directory = fast_directory();
    let root = directory.path().join("disk");
    let mut random = StdRng::seed_from_u64(seed);
    let mut positions = recording.history.positions.clone();
    for positions in &mut positions {
        positions.shuffle(&mut random);
    }
    let rounds = cuts.div_ceil(PHASES.len());
    for round in 0..rounds {
        // In the order of the log, so that one pass finds the state of the disk at each.
        let mut points: Vec<(usize, usize)> = positions
            .iter()
            .map(|positions| positions[round % positions.len()])
            .zip(0..)
            .collect();
        points.sort_unstable();
        let (mut disk, mut applied) = (Disk::new(mutant), 0);
        for (done, (at, phase)) in points.into_iter().enumerate() {
            for call in &recording.calls[applied..at] {
                disk.apply(call);
            }
            applied = at;
            let seed: u64 = random.random();
            fs::create_dir(&root).unwrap();
            disk.cut(&root, &mut StdRng::seed_from_u64(seed));
            if let Err(problem) = check(&root, &recording.history, at).await {
                let (phase, last) = (PHASES[phase], &recording.calls[at - 1]);
                return Err(BrokenPromise {
                    cuts: round * PHASES.len() + done + 1,
                    description: format!("cut in {phase}, after `{last}`: {problem}"),
                });
            }
            fs::remove_dir_all(&root).unwrap();
        }
    }
    Ok(())
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

#[tokio::test]
async fn power_cut_loses_nothing_acknowledged() {
    let Some(recording) = recording() else {
        return;
    };
    let cuts = number("ACCEPTED_POWER_CUTS").map_or(CUTS, |cuts| cuts as usize);
    let seed = number("ACCEPTED_POWER_SEED").unwrap_or(SEED);
    let begun = Instant::now();
    let done = cut_power(recording, None, cuts, seed).await;
    let share = cuts.div_ceil(PHASES.len());
    for (phase, positions) in PHASES.iter().zip(&recording.history.positions) {
        println!("{phase}: {share} cuts at {} calls", positions.len());
    }
    println!(
        "ACCEPTED_POWER_SEED={seed}, {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    if let Err(broken) = done {
        panic!("seed {seed}, cut {}: {}", broken.cuts, broken.description);
    }
}

async fn finds(mutant: Mutant) {
    let Some(recording) = recording() else {
        return;
    };
    match cut_power(recording, Some(mutant), MUTANT_CUTS, SEED).await {
        Ok(()) => panic!("{mutant:?} is not found"),
        Err(found) => println!("{mutant:?}: cut {}, {}", found.cuts, found.description),
    }
}

#[tokio::test]
async fn power_cuts_find_a_body_without_sync() {
    finds(Mutant::UnsyncedBodies).await;
}

#[tokio::test]
async fn power_cuts_find_body_names_without_sync() {
    finds(Mutant::UnsyncedBodyNames).await;
}

#[tokio::test]
async fn power_cuts_find_parents_without_sync() {
    finds(Mutant::UnsyncedParents).await;
}

#[tokio::test]
async fn power_cuts_find_normal_synchronous() {
    finds(Mutant::NormalSynchronous).await;
}
