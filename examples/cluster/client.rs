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

/// A client as they should be: it names each request, so that it can repeat it wherever it is not sure.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    addresses: Vec<SocketAddr>,
}

/// What has become of one request.
struct Done {
    /// How often it was sent before it was accepted.
    sent: usize,
    /// How often the monitor was asked.
    asked: usize,
    /// How often a look-up found nothing of what was accepted.
    not_found: usize,
    status: String,
    worker: Option<String>,
    took: Duration,
}

/// What has become of all of them.
#[derive(Default)]
pub(crate) struct Summary {
    requests: usize,
    repeated: usize,
    asked: usize,
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

    /// Submits so many requests at a pace, and follows each to its end.
    pub(crate) async fn submit(&self, requests: usize, pace: Duration) -> Summary {
        let mut following = JoinSet::new();
        for number in 0..requests {
            let client = self.clone();
            following.spawn(async move { client.one(number).await });
            sleep(pace).await;
        }
        let mut summary = Summary::default();
        while let Some(done) = following.join_next().await {
            if let Ok(done) = done {
                summary.count(done);
            }
        }
        summary
    }

    async fn one(&self, number: usize) -> Done {
        let began = Instant::now();
        let key = format!("\"request {number} of {}\"", std::process::id());
        let mut sent = 0;
        let location = loop {
            let address = self.addresses[(number + sent) % self.addresses.len()];
            sent += 1;
            let post = self.http.post(format!("http://{address}/reports/{number}"));
            match post.header("idempotency-key", &key).send().await {
                Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                    let location = answer.headers()["location"].to_str();
                    break location.unwrap_or_default().to_owned();
                }
                _ => sleep(Duration::from_millis(200)).await,
            }
        };
        let (mut asked, mut not_found) = (0, 0);
        let status = loop {
            asked += 1;
            match self.get(number + asked, &location).await {
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
            asked += 1;
            let answer = self
                .get(number + asked, &format!("{location}/result"))
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
        Done {
            sent,
            asked,
            not_found,
            status,
            worker,
            took: began.elapsed(),
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
    fn count(&mut self, done: Done) {
        self.requests += 1;
        self.repeated += usize::from(done.sent > 1);
        self.asked += done.asked;
        self.not_found += done.not_found;
        self.longest = self.longest.max(done.took);
        *self.ends.entry(done.status).or_default() += 1;
        if let Some(worker) = done.worker {
            *self.workers.entry(worker).or_default() += 1;
        }
    }

    /// Whether every accepted request has its result, and was found all the time.
    pub(crate) fn is_whole(&self) -> bool {
        let results: usize = self.workers.values().sum();
        self.not_found == 0 && results == self.requests
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:6}  requests, each accepted in the end", self.requests)?;
        writeln!(
            f,
            "{:6}  of them sent more than once, with the same key",
            self.repeated
        )?;
        for (end, requests) in &self.ends {
            writeln!(f, "{requests:6}  {end}")?;
        }
        for (worker, requests) in &self.workers {
            writeln!(f, "{requests:6}  results of process {worker}")?;
        }
        writeln!(f, "{:6}  look-ups", self.asked)?;
        writeln!(
            f,
            "{:6}  of them found nothing of what was accepted",
            self.not_found
        )?;
        write!(f, "{:6.1}  s for the slowest", self.longest.as_secs_f64())
    }
}
