//! The layer as a simple model sees it: one number for each limit, and one state for each job.

use std::collections::VecDeque;

use crate::site::{RETAIN_SECS, TIMEOUT_SECS, WAIT_SECS};

pub(crate) const MAX_UNFINISHED: usize = 4;
pub(crate) const LIMIT_BYTES: usize = 1 << 20;
const QUARTER_BYTES: usize = LIMIT_BYTES / 4;

/// The documented prices.
const CALL_BYTES: usize = 704;
const ENDED_BYTES: usize = 320;
const ORDER_BYTES: usize = 16;
const SCOPE_BYTES: usize = 192;
const PROGRESS_BYTES: usize = 96;
const REQUEST_BYTES: usize = 256;
/// The status, the number of fields, and the number of trailers.
const HEAD_BYTES: usize = 4;

/// The state of a job after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    Succeeded,
    /// With the code of its error.
    Failed(&'static str),
    Canceled,
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) state: State,
    pub(crate) key: Option<u8>,
    pub(crate) request: usize,
    pub(crate) percent: Option<u8>,
    is_progress_charged: bool,
    /// The length of its result.
    pub(crate) result: Option<usize>,
    created: u64,
    ended: u64,
    /// The job is still found. Otherwise it has expired, or was evicted or deleted.
    pub(crate) is_kept: bool,
    pub(crate) is_deleted: bool,
    pub(crate) readers: usize,
    /// It was passed over when room was made, so it is not in the order of ends.
    is_passed_over: bool,
}

/// A response that the model expects to a submitted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitted {
    New,
    Joined(usize),
    KeyReused,
    Gone,
    Full,
}

/// A waiter for the end of a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiter {
    pub(crate) job: usize,
    pub(crate) until: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) now: u64,
    pub(crate) jobs: Vec<Job>,
    /// The ended jobs, the one that ended first at the front. A deleted job stays until its turn.
    order: VecDeque<usize>,
    /// The bytes of the request of a call that ends after its job.
    held: usize,
    /// The job and the body's length of each key.
    keys: [Option<(usize, usize)>; 3],
    pub(crate) waiters: Vec<Waiter>,
}

impl Model {
    pub(crate) fn unfinished(&self) -> usize {
        let unfinished = self.jobs.iter();
        unfinished.filter(|job| job.state == State::Running).count()
    }

    /// Returns the bytes of all uses but keys.
    pub(crate) fn used(&self) -> usize {
        self.accepted() + self.kept() + self.replays()
    }

    /// Returns the bytes of the order of ends. Deleted jobs may leave it at any time, and an entry
    /// is not charged if there is no room for it.
    pub(crate) fn max_early_bytes(&self) -> usize {
        self.order.len() * ORDER_BYTES
    }

    /// Returns the bytes of jobs that have just expired, which the reaper may not have freed yet.
    pub(crate) fn max_late_bytes(&self) -> usize {
        let is_late = |job: &&Job| {
            let expired = job.ended + RETAIN_SECS;
            job.state != State::Running && expired <= self.now && self.now <= expired + 2
        };
        let bytes = |job: &Job| if job.is_deleted { 0 } else { job.ended_price() };
        let late = self.jobs.iter().filter(is_late);
        late.map(|job| bytes(job) + ORDER_BYTES).sum()
    }

    fn accepted(&self) -> usize {
        let running = self.jobs.iter().filter(|job| job.state == State::Running);
        running.map(Job::unfinished_price).sum::<usize>() + self.held
    }

    fn kept(&self) -> usize {
        let kept = self.jobs.iter();
        let kept = kept.filter(|job| job.is_kept && job.readers == 0);
        kept.map(Job::ended_price).sum::<usize>() + self.order.len() * ORDER_BYTES
    }

    fn replays(&self) -> usize {
        let read = self.jobs.iter().filter(|job| job.readers > 0);
        read.map(Job::ended_price).sum()
    }

    fn jobs_limit(&self) -> usize {
        LIMIT_BYTES - QUARTER_BYTES - self.replays().max(QUARTER_BYTES)
    }

    /// Evicts ended jobs, the oldest end first, until there is room for `bytes`.
    fn make_room(&mut self, bytes: usize) -> bool {
        if self.accepted() + bytes > self.jobs_limit() {
            return false;
        }
        while self.accepted() + self.kept() + bytes > self.jobs_limit() {
            let Some(first) = self.order.pop_front() else {
                return false;
            };
            let job = &mut self.jobs[first];
            if job.readers > 0 {
                job.is_passed_over = true;
            } else {
                job.is_kept = false;
            }
        }
        true
    }

    pub(crate) fn submit(&mut self, key: Option<u8>, body: usize, fields: usize) -> Submitted {
        if let Some((id, first)) = key.and_then(|key| self.keys[usize::from(key)]) {
            return match &self.jobs[id] {
                _ if first != body => Submitted::KeyReused,
                job if job.state == State::Running || job.is_kept => Submitted::Joined(id),
                _ => Submitted::Gone,
            };
        }
        let job = Job {
            state: State::Running,
            key,
            request: REQUEST_BYTES + "/call".len() + fields + body,
            percent: None,
            is_progress_charged: false,
            result: None,
            created: self.now,
            ended: 0,
            is_kept: false,
            is_deleted: false,
            readers: 0,
            is_passed_over: false,
        };
        let price = job.unfinished_price();
        let has_permit = self.unfinished() < MAX_UNFINISHED;
        let has_share = self.accepted() + price <= QUARTER_BYTES;
        if !has_permit || !has_share || !self.make_room(price) {
            return Submitted::Full;
        }
        if let Some(key) = key {
            self.keys[usize::from(key)] = Some((self.jobs.len(), body));
        }
        self.jobs.push(job);
        Submitted::New
    }

    /// Ends a running job with a response of `length` bytes.
    pub(crate) fn respond(&mut self, id: usize, status: u16, length: usize) {
        assert!(self.make_room(length), "a response always has room here");
        self.jobs[id].result = Some(length);
        let failed = State::Failed("http_error");
        self.end(
            id,
            if status < 400 {
                State::Succeeded
            } else {
                failed
            },
        );
    }

    /// Ends a running job with a response that breaks before its data. Its head needs room, as that
    /// of any other response.
    pub(crate) fn break_body(&mut self, id: usize) {
        assert!(self.make_room(0), "a response always has room here");
        self.end(id, State::Failed("body_error"));
    }

    pub(crate) fn progress(&mut self, id: usize, percent: u8) {
        let has_share = self.accepted() + PROGRESS_BYTES <= QUARTER_BYTES;
        let is_new = !self.jobs[id].is_progress_charged;
        if is_new && has_share && self.make_room(PROGRESS_BYTES) {
            self.jobs[id].is_progress_charged = true;
        }
        self.jobs[id].percent = Some(percent);
    }

    pub(crate) fn end(&mut self, id: usize, state: State) {
        let job = &mut self.jobs[id];
        job.state = state;
        job.ended = self.now;
        job.is_kept = true;
        self.order.push_back(id);
    }

    pub(crate) fn cancel(&mut self, id: usize) {
        if self.jobs[id].state == State::Running {
            self.interrupt(id, State::Canceled);
        }
    }

    /// Ends a running job before its call. The call then responds at once. Its response is not
    /// kept, but its head needs room, while the call still holds its request.
    fn interrupt(&mut self, id: usize, state: State) {
        let price = self.jobs[id].unfinished_price();
        self.jobs[id].state = state;
        self.held = price.saturating_sub(self.jobs[id].ended_price());
        self.end(id, state);
        self.make_room(HEAD_BYTES);
        self.held = 0;
    }

    pub(crate) fn delete(&mut self, id: usize) {
        self.cancel(id);
        let job = &mut self.jobs[id];
        job.is_kept = false;
        job.is_deleted = true;
        if let Some(key) = job.key {
            let entry = &mut self.keys[usize::from(key)];
            entry.take_if(|(keyed, _)| *keyed == id);
        }
    }

    /// Adds a reader of a result. Returns `false` if replays have no room for it.
    pub(crate) fn read(&mut self, id: usize) -> bool {
        let (job, replays) = (&self.jobs[id], self.replays());
        let has_room = replays == 0 || replays + job.ended_price() <= QUARTER_BYTES;
        let is_admitted = job.readers > 0 || has_room;
        // An empty body holds nothing.
        let is_empty = self.jobs[id].result == Some(0);
        self.jobs[id].readers += usize::from(is_admitted && !is_empty);
        is_admitted
    }

    pub(crate) fn stop_reading(&mut self, id: usize) {
        let job = &mut self.jobs[id];
        job.readers -= 1;
        if job.readers == 0 && std::mem::take(&mut job.is_passed_over) && job.is_kept {
            self.order.push_front(id);
            self.expire();
        }
    }

    /// Lets a second pass. Returns the jobs that time out.
    pub(crate) fn tick(&mut self) {
        self.now += 1;
        for id in 0..self.jobs.len() {
            let job = &self.jobs[id];
            if job.state == State::Running && job.created + TIMEOUT_SECS <= self.now {
                self.interrupt(id, State::Failed("timeout"));
            }
        }
        self.expire();
    }

    fn expire(&mut self) {
        while let Some(&first) = self.order.front()
            && self.is_expired(first)
        {
            self.order.pop_front();
            self.jobs[first].is_kept = false;
        }
        // A job that is read and was passed over is in no order, and clients do not find it.
        for id in 0..self.jobs.len() {
            if self.is_expired(id) {
                self.jobs[id].is_kept = false;
            }
        }
    }

    fn is_expired(&self, id: usize) -> bool {
        let job = &self.jobs[id];
        job.state != State::Running && job.ended + RETAIN_SECS <= self.now
    }

    /// Returns whether a waiter must have its answer, or `None` if both are right.
    pub(crate) fn is_answered(&self, waiter: Waiter) -> Option<bool> {
        if self.jobs[waiter.job].state != State::Running || self.now > waiter.until {
            Some(true)
        } else {
            (self.now < waiter.until).then_some(false)
        }
    }

    pub(crate) fn wait(&mut self, job: usize) {
        let until = self.now + WAIT_SECS;
        self.waiters.push(Waiter { job, until });
    }
}

impl Job {
    fn scope(&self) -> usize {
        self.key.map_or(0, |_| SCOPE_BYTES)
    }

    fn unfinished_price(&self) -> usize {
        let progress = usize::from(self.is_progress_charged) * PROGRESS_BYTES;
        ENDED_BYTES + CALL_BYTES + self.scope() + progress + self.request
    }

    fn ended_price(&self) -> usize {
        // A body that breaks here has no data, and its head is the part that is kept.
        let broken = (self.state == State::Failed("body_error")).then_some(0);
        let kept = self.result.or(broken);
        let response = kept.map_or(0, |length| HEAD_BYTES + length);
        let progress = self.percent.map_or(0, |_| PROGRESS_BYTES);
        ENDED_BYTES + self.scope() + progress + response
    }
}
