//! The report of a run, checked against the journal of the workers.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{WORKER_CONCURRENCY, task::runs_once};

/// The result of one request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fate {
    /// It was answered 503, which promises nothing.
    Refused,
    /// Its job succeeded, or failed with an error code.
    Ended(String),
}

pub(super) struct Report {
    /// By the path of the request.
    pub(super) fates: HashMap<String, Fate>,
    /// The accepted requests whose monitor was 404 once.
    pub(super) not_found: Vec<String>,
    /// The process ids of killed workers.
    pub(super) killed: HashSet<u32>,
    pub(super) duration: Duration,
    pub(super) faults: String,
}

impl Report {
    /// Checks that no accepted job was dropped, repeated, or lost without a reason.
    pub(super) fn check(&self, journal: &str) {
        let not_found = &self.not_found;
        assert!(not_found.is_empty(), "accepted, but 404: {not_found:?}");
        let calls = calls(journal);
        for (path, workers) in &calls {
            let is_allowed = workers.len() == 1 || !runs_once(path);
            assert!(is_allowed, "{path} ran more than once: {workers:?}");
        }
        let (mut accepted, mut lost) = (0, 0);
        for (path, fate) in &self.fates {
            let Fate::Ended(end) = fate else {
                continue;
            };
            let workers = calls.get(path.as_str()).map_or(&[][..], Vec::as_slice);
            accepted += 1;
            match end.as_str() {
                "succeeded" => assert!(!workers.is_empty(), "{path} did not run"),
                "lost" => {
                    lost += 1;
                    assert!(runs_once(path), "{path} could have run again");
                    // A job that was claimed and not started has no line in the journal.
                    let are_dead = workers.iter().all(|worker| self.killed.contains(worker));
                    assert!(are_dead, "{path} is lost, and {workers:?} was not killed");
                }
                _ => panic!("{path} ended as {end}"),
            }
        }
        let requests = self.fates.len();
        assert!(accepted * 2 >= requests, "only {accepted} were accepted");
        let max_lost = self.killed.len() * WORKER_CONCURRENCY;
        assert!(lost <= max_lost, "{lost} lost, of at most {max_lost}");
    }

    pub(super) fn summary(&self, journal: &str) -> String {
        let count = |wanted: &Fate| self.fates.values().filter(|fate| *fate == wanted).count();
        let refused = count(&Fate::Refused);
        let lost = count(&Fate::Ended("lost".to_owned()));
        format!(
            "{}\n{} requests in {:.1} s: {refused} refused, {} accepted, of these {lost} lost; \
             {} calls; {} workers were killed",
            self.faults,
            self.fates.len(),
            self.duration.as_secs_f64(),
            self.fates.len() - refused,
            journal.lines().count(),
            self.killed.len(),
        )
    }
}

/// Returns the process ids of the workers that started each request, by its path.
fn calls(journal: &str) -> HashMap<&str, Vec<u32>> {
    let mut calls: HashMap<&str, Vec<u32>> = HashMap::new();
    for line in journal.lines() {
        let (worker, path) = line.split_once(' ').expect("a worker and a path");
        let worker = worker.parse().expect("a process id");
        calls.entry(path).or_default().push(worker);
    }
    calls
}
