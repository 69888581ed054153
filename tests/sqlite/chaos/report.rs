//! The report of a run, checked against the journal of the calls.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{
    journal::Calls,
    submission::{Counts, Fate},
    task::{Task, TaskKind},
};

pub(super) struct Report {
    pub(super) fates: Vec<Fate>,
    /// By the path of the request.
    pub(super) calls: HashMap<String, Calls>,
    /// The monitors of accepted jobs that were 404 once.
    pub(super) not_found: Vec<String>,
    /// The ids of killed processes.
    pub(super) killed: HashSet<u32>,
    pub(super) duration: Duration,
    pub(super) faults: String,
}

impl Report {
    /// Checks that no accepted job was dropped, repeated, or lost without a reason.
    pub(super) fn check(&self) {
        let not_found = &self.not_found;
        assert!(not_found.is_empty(), "accepted, but 404: {not_found:?}");
        self.check_locations();
        for (path, calls) in &self.calls {
            self.check_calls(path, calls);
        }
        let none = Calls::default();
        for fate in &self.fates {
            let path = fate.task.path();
            let calls = self.calls.get(&path).unwrap_or(&none);
            match fate.job.as_ref().map(|(_, end)| end.outcome.as_str()) {
                None => assert_eq!(fate.task.kind(), TaskKind::Once, "{path} was given up"),
                Some("succeeded") => assert!(!calls.ended.is_empty(), "{path} did not run"),
                Some("lost") => {
                    let kind = fate.task.kind();
                    assert_eq!(kind, TaskKind::Once, "{path} could have run again");
                    // A process may die between the step that begins a call and the call.
                    let are_dead = calls.begun.iter().all(|process| self.is_killed(*process));
                    assert!(are_dead, "{path} is lost, and {calls:?} was not killed");
                }
                Some(outcome) => panic!("{path} ended as {outcome}"),
            }
        }
        let known = self.known();
        let requests = self.fates.len();
        assert!(known * 4 >= requests * 3, "only {known} were accepted");
    }

    /// Checks that no two requests have the same job.
    fn check_locations(&self) {
        let mut locations = HashSet::new();
        for fate in &self.fates {
            if let Some((location, _)) = &fate.job {
                let path = fate.task.path();
                assert!(locations.insert(location), "the job of {path} is another's");
            }
        }
    }

    /// Checks that each call of a request was allowed to begin.
    fn check_calls(&self, path: &str, calls: &Calls) {
        match Task::from_path(path).kind() {
            TaskKind::Once => {
                assert!(calls.begun.len() == 1, "{path} began again: {calls:?}");
                assert!(calls.ended.len() <= 1, "{path} ended again: {calls:?}");
            }
            // Repeats have the job of the first request, which runs again after a kill only.
            TaskKind::Twice | TaskKind::Repeated => {
                let processes: HashSet<_> = calls.begun.iter().collect();
                let are_distinct = processes.len() == calls.begun.len();
                assert!(are_distinct, "{path} began twice in a process: {calls:?}");
                let earlier = calls.begun.split_last().map_or(&[][..], |(_, rest)| rest);
                let are_dead = earlier.iter().all(|process| self.is_killed(*process));
                assert!(are_dead, "{path} began beside a living process: {calls:?}");
            }
            // A client that repeats it may get a second job.
            TaskKind::Put => {}
        }
    }

    fn is_killed(&self, process: u32) -> bool {
        self.killed.contains(&process)
    }

    /// Returns the number of keys, which is the number of jobs that have one.
    pub(super) fn keys(&self) -> usize {
        let keyed = self.fates.iter().filter(|fate| fate.task.is_keyed());
        keyed.count()
    }

    /// Returns the number of jobs that clients know.
    pub(super) fn known(&self) -> usize {
        self.fates.iter().filter(|fate| fate.job.is_some()).count()
    }

    pub(super) fn summary(&self) -> String {
        let is_lost = |fate: &&Fate| matches!(&fate.job, Some((_, end)) if end.outcome == "lost");
        let lost: Vec<&Fate> = self.fates.iter().filter(is_lost).collect();
        let unbegun = lost.iter();
        let unbegun = unbegun.filter(|fate| !self.calls.contains_key(&fate.task.path()));
        let mut counts = Counts::default();
        for fate in &self.fates {
            counts.add(fate.counts);
        }
        let calls: usize = self.calls.values().map(|calls| calls.begun.len()).sum();
        let unended: usize = self
            .calls
            .values()
            .map(|calls| calls.begun.len() - calls.ended.len())
            .sum();
        format!(
            "{}\n{} requests in {:.1} s: {} known as accepted, of these {} lost ({} of them \
             before a line in the journal), {} unknown to their clients\n\
             {} processes were killed, with them {unended} calls; {calls} calls began, {} of them \
             reruns\n{} connections broke, {} answers were 503, {} repeats joined a job",
            self.faults,
            self.fates.len(),
            self.duration.as_secs_f64(),
            self.known(),
            lost.len(),
            unbegun.count(),
            self.fates.len() - self.known(),
            self.killed.len(),
            calls - self.calls.len(),
            counts.broken,
            counts.refused,
            counts.joined,
        )
    }
}
