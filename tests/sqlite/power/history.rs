//! The steps of the workload, from the lines that it wrote into the log.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
};

use bytes::Bytes;
use tower_accepted::JobId;

use super::log::Call;

/// The parts of the workload, and the moments when the database itself is written.
pub(super) const PHASES: [&str; 6] = [
    "creation",
    "accept",
    "end",
    "body file",
    "checkpoint",
    "expiry",
];

/// The calls around a write to the database that belong to the same checkpoint.
const CHECKPOINT_MARGIN: usize = 6;

/// A step of the workload. Positions are numbers of calls in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// The position before the step.
    attempted: usize,
    /// The position after the store had acknowledged it.
    acknowledged: Option<usize>,
}

impl Step {
    pub(super) fn is_attempted(&self, at: usize) -> bool {
        self.attempted < at
    }

    pub(super) fn is_acknowledged(&self, at: usize) -> bool {
        self.acknowledged
            .is_some_and(|acknowledged| acknowledged < at)
    }
}

#[derive(Debug)]
pub(super) struct HistoricJob {
    pub(super) id: JobId,
    pub(super) number: usize,
    pub(super) has_key: bool,
    pub(super) may_rerun: bool,
    pub(super) request: Bytes,
    pub(super) accept: Step,
    pub(super) begin: Option<Step>,
    pub(super) end: Option<HistoricEnd>,
    pub(super) delete: Option<Step>,
    /// The lengths of its output that a reader has seen, with the position after that.
    pub(super) seen: Vec<(usize, u64)>,
}

impl HistoricJob {
    /// Returns the length of the output that a reader has certainly seen.
    pub(super) fn seen_length(&self, at: usize) -> u64 {
        let seen = self.seen.iter().filter(|(seen_at, _)| *seen_at < at);
        seen.map(|(_, length)| *length).max().unwrap_or(0)
    }
}

#[derive(Debug)]
pub(super) struct HistoricEnd {
    pub(super) step: Step,
    /// `None` if the job was canceled.
    pub(super) response: Option<(u16, Bytes)>,
    /// Known once it was acknowledged.
    pub(super) revision: u64,
    /// Set if the job expires during the workload.
    pub(super) expires: bool,
}

#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) jobs: BTreeMap<usize, HistoricJob>,
    /// The calls of each of [`PHASES`].
    pub(super) positions: [Vec<usize>; PHASES.len()],
}

impl History {
    pub(super) fn read(calls: &[Call<'_>]) -> Self {
        let mut history = Self::default();
        let mut phase = None;
        let mut database_writes = Vec::new();
        let mut seen = HashSet::new();
        for (at, call) in calls.iter().enumerate() {
            match *call {
                Call::Mark(line) => match line.strip_prefix("phase ") {
                    Some(name) => phase = PHASES.iter().position(|&phase| phase == name),
                    None => history.note(at, line),
                },
                Call::Write {
                    path: "jobs.db", ..
                } if phase != Some(0) => database_writes.push(at),
                _ => {}
            }
            if let Some(phase) = phase {
                history.positions[phase].push(at);
            }
        }
        for write in database_writes {
            let around = write.saturating_sub(CHECKPOINT_MARGIN)..write + CHECKPOINT_MARGIN;
            let around: Range<usize> = around.start..around.end.min(calls.len());
            history.positions[4].extend(around.filter(|&at| seen.insert(at)));
        }
        history
    }

    fn note(&mut self, at: usize, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| words[index].parse::<usize>().expect("a number");
        let job = number(1);
        let step = Step {
            attempted: at,
            acknowledged: None,
        };
        if words[0] == "accepting" {
            let new = HistoricJob {
                number: job,
                id: words[2].parse().expect("an id"),
                has_key: words[3] == "keyed",
                may_rerun: words[3] != "once",
                request: request_body(job, number(4)),
                accept: step,
                begin: None,
                end: None,
                delete: None,
                seen: Vec::new(),
            };
            self.jobs.insert(job, new);
            return;
        }
        let is_done = Some(at);
        let known = self.jobs.get_mut(&job).expect("a job");
        match words[0] {
            "accepted" => known.accept.acknowledged = is_done,
            "beginning" => known.begin = Some(step),
            "begun" => known.begin.as_mut().unwrap().acknowledged = is_done,
            "ending" | "canceling" => {
                let response = (words[0] == "ending").then(|| {
                    let body = response_body(job, number(3));
                    (words[2].parse().expect("a status"), body)
                });
                known.end = Some(HistoricEnd {
                    step,
                    response,
                    revision: 0,
                    expires: words.last() == Some(&"expires"),
                });
            }
            "ended" | "canceled" => {
                let end = known.end.as_mut().unwrap();
                end.step.acknowledged = is_done;
                end.revision = number(2) as u64;
            }
            "seen" => known.seen.push((at, number(2) as u64)),
            "deleting" => known.delete = Some(step),
            "deleted" => known.delete.as_mut().unwrap().acknowledged = is_done,
            other => panic!("an unknown mark: {other}"),
        }
    }
}

pub(super) fn request_body(job: usize, length: usize) -> Bytes {
    bytes(2 * job as u64 + 1, length)
}

pub(super) fn response_body(job: usize, length: usize) -> Bytes {
    bytes(2 * job as u64 + 2, length)
}

/// Returns bytes whose place and owner can be recognized: a generator of Marsaglia's.
fn bytes(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}
