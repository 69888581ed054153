//! A client that retries each request until it is accepted, and polls until it has the result.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::StatusCode;
use reqwest::Response;
use serde_json::Value;
use tokio::{task::JoinSet, time::sleep};

/// Sends each request with an idempotency key, so that it can safely retry.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    addresses: Vec<SocketAddr>,
}

/// The outcome of one request.
struct RequestOutcome {
    /// The attempts until it was accepted.
    attempts: usize,
    /// The requests to the monitor.
    polls: usize,
    /// The polls that did not find the accepted job.
    not_found: usize,
    status: String,
    worker: Option<String>,
    elapsed: Duration,
}

/// The outcome of all requests.
#[derive(Default)]
pub(crate) struct Summary {
    requests: usize,
    retried: usize,
    polls: usize,
    not_found: usize,
    ends: BTreeMap<String, usize>,
    workers: BTreeMap<String, usize>,
    longest: Duration,
}

impl Client {
    pub(crate) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self {
            http: reqwest::Client::new(),
            addresses,
        }
    }

    /// Waits until every web process answers.
    pub(crate) async fn wait_until_served(&self) {
        for address in &self.addresses {
            while self
                .http
                .get(format!("http://{address}/"))
                .send()
                .await
                .is_err()
            {
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Submits one request per `pace`, and follows each to its end.
    pub(crate) async fn submit(&self, requests: usize, pace: Duration) -> Summary {
        let mut following = JoinSet::new();
        for number in 0..requests {
            let client = self.clone();
            following.spawn(async move { client.follow(number).await });
            sleep(pace).await;
        }
        let mut summary = Summary::default();
        while let Some(joined) = following.join_next().await {
            if let Ok(outcome) = joined {
                summary.count(outcome);
            }
        }
        summary
    }

    async fn follow(&self, number: usize) -> RequestOutcome {
        let began = Instant::now();
        let key = format!("\"request {number} of {}\"", std::process::id());
        let mut attempts = 0;
        let location = loop {
            let address = self.addresses[(number + attempts) % self.addresses.len()];
            attempts += 1;
            let post = self.http.post(format!("http://{address}/reports/{number}"));
            match post.header("idempotency-key", &key).send().await {
                Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                    let location = answer.headers()["location"].to_str();
                    break location.unwrap_or_default().to_owned();
                }
                _ => sleep(Duration::from_millis(200)).await,
            }
        };
        let (mut polls, mut not_found) = (0, 0);
        let status = loop {
            polls += 1;
            match self.get(number + polls, &location).await {
                Some(answer) if answer.status() == StatusCode::OK => {
                    let document: Value = json(answer).await;
                    let status = document["status"].as_str();
                    if let Some(status @ ("succeeded" | "failed" | "canceled")) = status {
                        break status.to_owned();
                    }
                }
                Some(answer) if answer.status() == StatusCode::NOT_FOUND => not_found += 1,
                _ => {}
            }
            sleep(Duration::from_millis(200)).await;
        };
        let worker = loop {
            polls += 1;
            let answer = self
                .get(number + polls, &format!("{location}/result"))
                .await;
            match answer {
                Some(answer) if answer.headers().contains_key("asyncresult") => {
                    let worker = answer.headers().get("x-worker");
                    break worker.and_then(|worker| worker.to_str().ok().map(str::to_owned));
                }
                Some(answer) if answer.status().as_u16() < 503 => break None,
                _ => sleep(Duration::from_millis(200)).await,
            }
        };
        RequestOutcome {
            attempts,
            polls,
            not_found,
            status,
            worker,
            elapsed: began.elapsed(),
        }
    }

    async fn get(&self, turn: usize, path: &str) -> Option<Response> {
        let address = self.addresses[turn % self.addresses.len()];
        self.http
            .get(format!("http://{address}{path}"))
            .send()
            .await
            .ok()
    }
}

async fn json(answer: Response) -> Value {
    let bytes = answer.bytes().await.unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

impl Summary {
    fn count(&mut self, outcome: RequestOutcome) {
        self.requests += 1;
        self.retried += usize::from(outcome.attempts > 1);
        self.polls += outcome.polls;
        self.not_found += outcome.not_found;
        self.longest = self.longest.max(outcome.elapsed);
        *self.ends.entry(outcome.status).or_default() += 1;
        if let Some(worker) = outcome.worker {
            *self.workers.entry(worker).or_default() += 1;
        }
    }

    /// Returns whether each request has a result, and each poll found its job.
    pub(crate) fn is_complete(&self) -> bool {
        let results: usize = self.workers.values().sum();
        self.not_found == 0 && results == self.requests
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:6}  requests, all accepted", self.requests)?;
        writeln!(f, "{:6}  of them retried with the same key", self.retried)?;
        for (end, requests) in &self.ends {
            writeln!(f, "{requests:6}  {end}")?;
        }
        for (worker, requests) in &self.workers {
            writeln!(f, "{requests:6}  results from process {worker}")?;
        }
        writeln!(f, "{:6}  polls", self.polls)?;
        writeln!(f, "{:6}  of them did not find the job", self.not_found)?;
        write!(
            f,
            "{:6.1}  s for the slowest request",
            self.longest.as_secs_f64()
        )
    }
}
