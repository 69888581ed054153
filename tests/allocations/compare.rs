//! Compares the layer with the model after each step of any sequence.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use allocation_counter::measure;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use proptest::{collection::vec, prelude::*, test_runner::Config};
use tokio::task::JoinHandle;
use tower_accepted::{ResponseBody, store::fields_price};

use crate::{
    model::{LIMIT_BYTES, Model, State, Submitted},
    site::{Answer, CallBody, Command, Site, empty, request, settle},
};

/// The memory that a sequence may take beside the budget.
const MAX_OTHER_BYTES: u64 = 32 << 20;

/// A step. A number selects a job, a waiter or a reader, modulo their count.
#[derive(Debug, Clone, Copy)]
enum Step {
    Submit { key: Option<u8>, body: usize },
    Progress(usize, u8),
    Respond(usize, u16, usize),
    Panic(usize),
    BreakBody(usize),
    Cancel(usize),
    Delete(usize),
    Wait(usize),
    DropWaiter(usize),
    Read(usize),
    DropReader(usize),
    Advance(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let job = 0_usize..16;
    let body = proptest::sample::select(vec![0, 1_000, 40_000, 90_000]);
    let length = proptest::sample::select(vec![0, 1_000, 120_000, 200_000]);
    let status = proptest::sample::select(vec![200, 500]);
    prop_oneof![
        8 => (proptest::option::of(0_u8..3), body)
            .prop_map(|(key, body)| Step::Submit { key, body }),
        3 => (job.clone(), 0_u8..=100).prop_map(|(job, percent)| Step::Progress(job, percent)),
        8 => (job.clone(), status, length)
            .prop_map(|(job, status, length)| Step::Respond(job, status, length)),
        1 => job.clone().prop_map(Step::Panic),
        1 => job.clone().prop_map(Step::BreakBody),
        2 => job.clone().prop_map(Step::Cancel),
        2 => job.clone().prop_map(Step::Delete),
        2 => job.clone().prop_map(Step::Wait),
        1 => job.clone().prop_map(Step::DropWaiter),
        6 => job.clone().prop_map(Step::Read),
        2 => job.prop_map(Step::DropReader),
        2 => (1_u8..60).prop_map(Step::Advance),
    ]
}

/// The clients, and the model that they are compared with.
struct Clients {
    site: std::sync::Arc<Site>,
    model: Model,
    /// The id of each job of the model.
    ids: Vec<String>,
    waiters: Vec<JoinHandle<Answer>>,
    readers: Vec<(usize, Response<ResponseBody<CallBody>>)>,
}

impl Clients {
    fn new() -> Self {
        Self {
            site: std::sync::Arc::new(Site::new()),
            model: Model::default(),
            ids: Vec::new(),
            waiters: Vec::new(),
            readers: Vec::new(),
        }
    }

    /// Returns the selected job, if there are jobs.
    fn job(&self, selector: usize) -> Option<usize> {
        // Recent jobs are more interesting.
        let count = self.ids.len();
        (count > 0).then(|| count - 1 - selector % count.min(8))
    }

    fn running(&self, selector: usize) -> Option<usize> {
        let job = self.job(selector)?;
        (self.model.jobs[job].state == State::Running).then_some(job)
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Submit { key, body } => self.submit(key, body).await,
            Step::Progress(job, percent) => {
                if let Some(job) = self.running(job) {
                    self.site.command(job, Command::Progress(percent));
                    self.model.progress(job, percent);
                }
            }
            Step::Respond(job, status, length) => {
                if let Some(job) = self.running(job) {
                    self.site.command(job, Command::Respond(status, length));
                    self.model.respond(job, status, length);
                }
            }
            Step::Panic(job) => {
                if let Some(job) = self.running(job) {
                    self.site.command(job, Command::Panic);
                    self.model.end(job, State::Failed("panic"));
                }
            }
            Step::BreakBody(job) => {
                if let Some(job) = self.running(job) {
                    self.site.command(job, Command::BreakBody);
                    self.model.break_body(job);
                }
            }
            Step::Cancel(job) => {
                if let Some(job) = self.job(job) {
                    let cancel = request("POST", &format!("/jobs/{}/cancel", self.ids[job]));
                    let answer = self.site.send(empty(cancel)).await;
                    assert_eq!(answer.status, self.found(job), "cancel of {job}");
                    self.model.cancel(job);
                }
            }
            Step::Delete(job) => {
                if let Some(job) = self.job(job) {
                    let delete = request("DELETE", &format!("/jobs/{}", self.ids[job]));
                    let answer = self.site.send(empty(delete)).await;
                    let expected = self.found(job);
                    if expected == StatusCode::OK {
                        assert_eq!(answer.status, StatusCode::NO_CONTENT);
                        self.model.delete(job);
                    } else {
                        assert_eq!(answer.status, expected, "delete of {job}");
                    }
                }
            }
            Step::Wait(job) => {
                if let Some(job) = self.running(job) {
                    let wait = request("GET", &format!("/jobs/{}", self.ids[job]));
                    let wait = empty(wait.header("prefer", "wait=20"));
                    let site = self.site.clone();
                    self.waiters
                        .push(tokio::spawn(async move { site.send(wait).await }));
                    self.model.wait(job);
                    settle().await;
                }
            }
            Step::DropWaiter(waiter) => {
                if !self.waiters.is_empty() {
                    let waiter = waiter % self.waiters.len();
                    self.waiters.swap_remove(waiter).abort();
                    self.model.waiters.swap_remove(waiter);
                }
            }
            Step::Read(job) => self.read(job).await,
            Step::DropReader(reader) => {
                if !self.readers.is_empty() {
                    let reader = reader % self.readers.len();
                    let (job, response) = self.readers.swap_remove(reader);
                    drop(response);
                    self.model.stop_reading(job);
                }
            }
            Step::Advance(seconds) => {
                for _ in 0..seconds {
                    self.tick().await;
                }
            }
        }
        self.tick().await;
        self.check().await;
    }

    async fn tick(&mut self) {
        settle().await;
        self.site.tick().await;
        self.model.tick();
    }

    /// Returns the status of the monitor for a job.
    fn found(&self, job: usize) -> StatusCode {
        let job = &self.model.jobs[job];
        if job.is_deleted {
            StatusCode::NOT_FOUND
        } else if job.state == State::Running || job.is_kept {
            StatusCode::OK
        } else {
            StatusCode::GONE
        }
    }

    async fn submit(&mut self, key: Option<u8>, body: usize) {
        let mut submission = request("POST", "/call");
        if let Some(key) = key {
            submission = submission.header("idempotency-key", format!("\"key-{key}\""));
        }
        let submission = submission.body(Full::new(Bytes::from(vec![7; body])));
        let submission = submission.expect("a request");
        let fields = fields_price(submission.headers());
        let calls = self.site.calls();
        let answer = self.site.send(submission).await;
        settle().await;
        let expected = self.model.submit(key, body, fields);
        let is_new = expected == Submitted::New;
        assert_eq!(self.site.calls() - calls, usize::from(is_new), "calls");
        let status = match expected {
            Submitted::New | Submitted::Joined(_) => StatusCode::ACCEPTED,
            Submitted::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Submitted::Gone => StatusCode::GONE,
            Submitted::Full => StatusCode::SERVICE_UNAVAILABLE,
        };
        assert_eq!(answer.status, status, "{expected:?}");
        match expected {
            Submitted::New => self.ids.push(answer.id()),
            Submitted::Joined(job) => assert_eq!(answer.id(), self.ids[job]),
            _ => {}
        }
    }

    async fn read(&mut self, job: usize) {
        let Some(job) = self.job(job) else {
            return;
        };
        let read = empty(request("GET", &format!("/jobs/{}/result", self.ids[job])));
        let expected = match (self.found(job), self.model.jobs[job].state) {
            (StatusCode::OK, State::Running) => StatusCode::ACCEPTED,
            (StatusCode::OK, State::Canceled) => StatusCode::CONFLICT,
            (StatusCode::OK, State::Failed("timeout")) => StatusCode::GATEWAY_TIMEOUT,
            (StatusCode::OK, State::Failed(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            (StatusCode::OK, State::Succeeded) => StatusCode::OK,
            (missing, _) => missing,
        };
        let has_result = self.found(job) == StatusCode::OK && self.model.jobs[job].result.is_some();
        if has_result && !self.model.read(job) {
            // It waits for five seconds.
            let site = self.site.clone();
            let reading = tokio::spawn(async move { site.begin(read).await.status() });
            for _ in 0..5 {
                self.tick().await;
            }
            assert_eq!(
                reading.await.expect("no panic"),
                StatusCode::SERVICE_UNAVAILABLE
            );
            return;
        }
        let response = self.site.begin(read).await;
        assert_eq!(response.status(), expected, "result of {job}");
        if has_result && self.model.jobs[job].result != Some(0) {
            self.readers.push((job, response));
        }
    }

    /// Compares every job, the permits and the bytes.
    async fn check(&mut self) {
        settle().await;
        let model = &self.model;
        assert_eq!(self.site.jobs.unfinished(), model.unfinished(), "permits");
        let used = self.site.budget.used();
        let expected = model.used();
        let least = expected - model.max_early_bytes();
        let range = least..=expected + model.max_late_bytes();
        assert!(range.contains(&used), "{used} of {range:?} bytes");
        for (index, id) in self.ids.iter().enumerate() {
            let answer = self
                .site
                .send(empty(request("GET", &format!("/jobs/{id}"))))
                .await;
            assert_eq!(answer.status, self.found(index), "job {index}");
            if answer.status == StatusCode::OK {
                compare(&answer, &model.jobs[index]);
            }
        }
        for (waiter, expected) in self.waiters.iter().zip(&model.waiters) {
            if let Some(is_answered) = model.is_answered(*expected) {
                assert_eq!(waiter.is_finished(), is_answered, "{expected:?}");
            }
        }
    }
}

fn compare(answer: &Answer, job: &crate::model::Job) {
    let document = answer.json();
    let (status, code) = match job.state {
        State::Running => ("running", None),
        State::Succeeded => ("succeeded", None),
        State::Failed(code) => ("failed", Some(code)),
        State::Canceled => ("canceled", Some("canceled")),
    };
    assert_eq!(document["status"], status);
    assert_eq!(document["error"]["code"].as_str(), code);
    let length = document["response"]["contentLength"].as_u64();
    assert_eq!(length, job.result.map(|length| length as u64));
    if job.state == State::Running {
        let percent = document["percentComplete"].as_f64();
        assert_eq!(percent, job.percent.map(f64::from));
    }
}

/// Returns the number of sequences: more of them prove more and take longer.
fn cases() -> u32 {
    let cases = std::env::var("ACCEPTED_MODEL_CASES");
    cases
        .ok()
        .map_or(100, |cases| cases.parse().expect("a number"))
}

#[test]
fn layer_behaves_as_its_model() {
    let config = Config {
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(17),
        ..Config::with_cases(cases())
    };
    proptest!(config, |(steps in vec(step(), 1..60))| {
        let mut result = Ok(());
        // A panic must not leave the measurement open.
        let run = AssertUnwindSafe(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let mut clients = Clients::new();
                for step in steps {
                    clients.take(step).await;
                }
            });
        });
        let memory = measure(|| result = catch_unwind(run));
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        assert!(memory.bytes_max <= LIMIT_BYTES as u64 + MAX_OTHER_BYTES, "{memory:?}");
    });
}
