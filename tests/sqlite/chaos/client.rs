//! Sends requests over HTTP to the processes, and follows jobs to their end.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use rand::{RngExt, rngs::StdRng};
use tokio::time::sleep;

use super::{PROCESSES, task::Task};
use crate::support::Answer;

/// The time after which a client gives a request up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A client of both processes. Clones share connections.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    addresses: [String; PROCESSES],
    /// The accepted jobs whose monitor was 404 once.
    pub(super) not_found: Arc<Mutex<Vec<String>>>,
}

/// The end of a job, as its monitor shows it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JobEnd {
    /// `succeeded`, or the error code.
    pub(super) outcome: String,
    pub(super) document: Bytes,
    pub(super) etag: String,
    /// The `ETag` of the result, if the job succeeded.
    pub(super) result_etag: Option<String>,
}

impl Client {
    pub(super) fn new(addresses: [String; PROCESSES]) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(REQUEST_TIMEOUT)
            .build();
        Self {
            http: http.expect("a client"),
            addresses,
            not_found: Arc::default(),
        }
    }

    /// Sends the request of a task. Returns `None` if the connection breaks.
    pub(super) async fn submit(&self, process: usize, task: Task) -> Option<Answer> {
        let request = self.request(process, task.method(), &task.path());
        let request = match task.key() {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        answer(request.body(task.request_body())).await
    }

    async fn get(&self, process: usize, path: &str) -> Option<Answer> {
        answer(self.request(process, Method::GET, path)).await
    }

    fn request(&self, process: usize, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.addresses[process]);
        self.http.request(method, url)
    }

    /// Polls both processes in turns until the job has ended.
    pub(super) async fn follow(&self, location: &str, task: Task, random: &mut StdRng) -> JobEnd {
        loop {
            let process = random.random_range(0..PROCESSES);
            if let Some(end) = self.read_end(process, location, task).await {
                return end;
            }
            let pause = Duration::from_millis(random.random_range(50..500));
            sleep(pause).await;
        }
    }

    /// Reads document and result from one process, however often its connections break.
    pub(super) async fn read_again(&self, process: usize, location: &str, task: Task) -> JobEnd {
        loop {
            if let Some(end) = self.read_end(process, location, task).await {
                return end;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Reads document and result. Returns `None` if the job has not ended or the process fails.
    async fn read_end(&self, process: usize, location: &str, task: Task) -> Option<JobEnd> {
        let answer = self.read(process, location, location).await?;
        let document = answer.json();
        let status = document["status"].as_str().expect("a status");
        let outcome = match status {
            "queued" | "running" => return None,
            "succeeded" => status,
            _ => document["error"]["code"].as_str().expect("an error code"),
        };
        let mut end = JobEnd {
            outcome: outcome.to_owned(),
            document: answer.body.clone(),
            etag: answer.header("etag").expect("an ETag").to_owned(),
            result_etag: None,
        };
        if outcome == "succeeded" {
            let path = format!("{location}/result");
            let result = self.read(process, location, &path).await?;
            let is_right = result.body == task.response_body();
            assert!(is_right, "another result than {}'s", task.path());
            let etag = result.header("etag").expect("an ETag");
            end.result_etag = Some(etag.to_owned());
        }
        Some(end)
    }

    /// Reads a resource of an accepted job. Returns `None` if the process fails.
    async fn read(&self, process: usize, location: &str, path: &str) -> Option<Answer> {
        let answer = self.get(process, path).await?;
        match answer.status {
            StatusCode::OK => Some(answer),
            StatusCode::SERVICE_UNAVAILABLE => None,
            // The report fails for it. The job must be found again and end all the same.
            StatusCode::NOT_FOUND => {
                self.not_found.lock().push(location.to_owned());
                None
            }
            _ => panic!("{path} is {answer:?}"),
        }
    }
}

/// Sends a request and reads the answer. Returns `None` if the connection breaks.
async fn answer(request: reqwest::RequestBuilder) -> Option<Answer> {
    let response = request.send().await.ok()?;
    let status = response.status();
    let headers: HeaderMap = response.headers().clone();
    Some(Answer {
        status,
        headers,
        body: response.bytes().await.ok()?,
        trailers: None,
    })
}
