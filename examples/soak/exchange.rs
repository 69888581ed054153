//! The exchanges of a client with the server, and the checks of each response.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::{
    client::{Answer, Clients, Protocol},
    steps::{check, document, expect_status, is_ended, target},
    tally::Tally,
    work::{Work, WorkEnd},
};

/// The time limit of one exchange.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// The size of a response that is read slowly, in bytes.
const SLOW_BYTES: usize = 1 << 20;

/// All exchanges of one seed.
#[derive(Debug)]
pub(crate) struct Exchanges {
    pub(crate) clients: Clients,
    seed: u64,
    /// The number of the next exchange. Each is taken once, in any order.
    next: AtomicU64,
    pub(crate) tally: Arc<Tally>,
}

impl Exchanges {
    pub(crate) fn new(server: SocketAddr, seed: u64, tally: Arc<Tally>) -> Self {
        Self {
            clients: Clients::new(server),
            seed,
            next: AtomicU64::new(0),
            tally,
        }
    }

    /// Runs the next exchange. Returns `false` if there have been `limit` of them.
    pub(crate) async fn run_next(&self, limit: u64) -> bool {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= limit {
            return false;
        }
        // A function of seed and number alone.
        let seed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number;
        let mut random = StdRng::seed_from_u64(seed);
        let exchange = Exchange {
            all: self,
            work: Work::random(&mut random),
            protocol: if random.random() {
                Protocol::Http1
            } else {
                Protocol::Http2
            },
        };
        match timeout(EXCHANGE_TIMEOUT, exchange.run(&mut random)).await {
            Ok(Ok(())) => {}
            Ok(Err(outcome)) => {
                let work = exchange.work;
                self.tally
                    .wrong(format_args!("exchange {number}, {work}: {outcome}"));
            }
            Err(_) => {
                let work = exchange.work;
                let open = self.tally.open.older_than(EXCHANGE_TIMEOUT / 2);
                eprintln!("stuck: exchange {number}, {work}; the server has not answered: {open}");
                self.tally.stuck.add(1);
            }
        }
        self.tally.exchanges.add(1);
        true
    }
}

/// One exchange: a request, its job, and its response.
pub(crate) struct Exchange<'a> {
    pub(crate) all: &'a Exchanges,
    pub(crate) work: Work,
    pub(crate) protocol: Protocol,
}

/// The fate of a request.
pub(crate) enum Submission {
    /// A job with this monitor.
    Job(String),
    /// The response of the service.
    Inline(Answer),
    /// Nothing: the server had no permit or no room.
    Refused,
}

/// The outcome of an exchange. An error says what is wrong.
pub(crate) type Outcome<T = ()> = Result<T, String>;

impl Exchange<'_> {
    async fn run(&self, random: &mut StdRng) -> Outcome {
        match random.random_range(0..16) {
            0 => self.hang_up(random).await,
            1 | 2 => self.read_slowly(random.random()).await,
            3 | 4 => self.repeat_key().await,
            5 => self.delete_running().await,
            6 => self.cancel_running().await,
            7 => self.listen().await,
            8 | 9 => self.wait_for_response().await,
            number => self.follow(number % 2 == 0).await,
        }
    }

    /// Polls the job until it has ended, reads its result and, at times, deletes it.
    async fn follow(&self, deletes: bool) -> Outcome {
        if let Submission::Job(job) = self.submit(&[]).await? {
            if let Some(document) = self.ended(&job).await? {
                self.check_end(&job, &document).await?;
            }
            if deletes {
                self.delete(&job).await?;
            }
        }
        Ok(())
    }

    /// Closes the connection in the middle of the request, or before the response.
    async fn hang_up(&self, random: &mut StdRng) -> Outcome {
        let body = self.work.request_body();
        let sent = if random.random() {
            body.len()
        } else {
            body.len() / 2
        };
        let stream = self
            .all
            .clients
            .send_part(&target(&self.work), &body, sent)
            .await;
        drop(stream.map_err(|error| format!("failed to send request: {error}"))?);
        self.all.tally.hung_up.add(1);
        Ok(())
    }

    /// Reads a large result frame by frame with pauses, or closes the stream in the middle.
    async fn read_slowly(&self, to_the_end: bool) -> Outcome {
        let work = Work {
            size: SLOW_BYTES,
            end: WorkEnd::Success,
            ..self.work
        };
        let exchange = Exchange { work, ..*self };
        let Submission::Job(job) = exchange.submit(&[]).await? else {
            return Ok(());
        };
        let Some(document) = exchange.ended(&job).await? else {
            return Ok(());
        };
        if document["status"] != "succeeded" {
            return exchange.check_end(&job, &document).await;
        }
        let target = format!("{job}/result");
        let clients = &self.all.clients;
        let response = clients
            .open(self.protocol, Method::GET, &target, &[], Bytes::new())
            .await;
        let response = response.map_err(|error| format!("failed to read result: {error}"))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::GONE => {
                self.all.tally.evicted.add(1);
                return Ok(());
            }
            // Too many results are read at a time.
            StatusCode::SERVICE_UNAVAILABLE => {
                self.all.tally.refused.add(1);
                return Ok(());
            }
            status => return Err(format!("{status} for a result")),
        }
        let (expected, mut read) = (work.response_body(), 0);
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("result broke off: {error}"))?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            if expected.get(read..read + data.len()) != Some(&data[..]) {
                return Err(format!("other bytes at {read} of a slow result"));
            }
            read += data.len();
            if !to_the_end && read * 2 > expected.len() {
                self.all.tally.hung_up.add(1);
                return Ok(());
            }
            sleep(Duration::from_millis(2)).await;
        }
        check(read == expected.len(), || {
            format!("{read} bytes of a slow result")
        })
    }

    /// Sends two requests with a key at a time, and one more after the end.
    async fn repeat_key(&self) -> Outcome {
        let work = Work {
            end: WorkEnd::Success,
            ..self.work
        };
        let exchange = Exchange { work, ..*self };
        let key = format!("key-{}", work.seed);
        let fields = [("idempotency-key", key.as_str())];
        let (first, second) = tokio::join!(exchange.submit(&fields), exchange.submit(&fields));
        let (first, second) = (first?, second?);
        let jobs = [first, second]
            .into_iter()
            .filter_map(|submission| match submission {
                Submission::Job(job) => Some(job),
                _ => None,
            });
        let jobs: Vec<String> = jobs.collect();
        let Some(job) = jobs.first() else {
            return Ok(());
        };
        // The second was no further job.
        self.all.tally.ended.add(jobs.len() as u64 - 1);
        check(jobs.iter().all(|one| one == job), || {
            "two jobs with one key".to_owned()
        })?;
        let Some(document) = exchange.ended(job).await? else {
            return Ok(());
        };
        exchange.check_end(job, &document).await?;
        let Some(answer) = exchange.post(&fields).await? else {
            return Ok(());
        };
        match answer.status {
            StatusCode::ACCEPTED => {
                check(answer.field("location") == job, || {
                    "another job for a repeat".to_owned()
                })?;
                let replayed = answer.field("idempotent-replayed");
                check(replayed == "true", || {
                    "a repeat without its mark".to_owned()
                })
            }
            // Its job has made room for others.
            StatusCode::GONE => {
                self.all.tally.evicted.add(1);
                Ok(())
            }
            _ => self.refused(&answer),
        }
    }

    /// Deletes the job while it runs.
    async fn delete_running(&self) -> Outcome {
        let work = Work {
            millis: 2_000,
            ..self.work
        };
        if let Submission::Job(job) = (Exchange { work, ..*self }).submit(&[]).await? {
            self.delete(&job).await?;
            self.all.tally.ended.add(1);
        }
        Ok(())
    }

    /// Cancels the job while it runs, twice.
    async fn cancel_running(&self) -> Outcome {
        let work = Work {
            millis: 2_000,
            ..self.work
        };
        let exchange = Exchange { work, ..*self };
        let Submission::Job(job) = exchange.submit(&[]).await? else {
            return Ok(());
        };
        for _ in 0..2 {
            let answer = self
                .send(Method::POST, &format!("{job}/cancel"), &[])
                .await?;
            expect_status(&answer, StatusCode::OK)?;
            let document = document(&answer)?;
            check(document["status"] == "canceled", || {
                format!("after a cancel: {document}")
            })?;
        }
        self.all.tally.ended.add(1);
        let answer = self
            .send(Method::GET, &format!("{job}/result"), &[])
            .await?;
        expect_status(&answer, StatusCode::CONFLICT)
    }

    /// Reads the job's events until they end.
    async fn listen(&self) -> Outcome {
        let Submission::Job(job) = self.submit(&[]).await? else {
            return Ok(());
        };
        let answer = self
            .send(Method::GET, &format!("{job}/events"), &[])
            .await?;
        expect_status(&answer, StatusCode::OK)?;
        let text = String::from_utf8_lossy(&answer.body);
        let last = text
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .next_back();
        let document: Value = serde_json::from_str(last.unwrap_or_default())
            .map_err(|error| format!("malformed event: {error}"))?;
        check(is_ended(&document), || {
            format!("the last event: {document}")
        })?;
        self.all.tally.ended.add(1);
        self.check_end(&job, &document).await
    }

    /// Asks the server to wait for the response itself.
    async fn wait_for_response(&self) -> Outcome {
        let end = match self.work.end {
            WorkEnd::ServerError => WorkEnd::ServerError,
            _ => WorkEnd::Success,
        };
        let work = Work { end, ..self.work };
        let exchange = Exchange { work, ..*self };
        match exchange
            .submit(&[("prefer", "respond-async, wait=2")])
            .await?
        {
            Submission::Inline(answer) => exchange.check_response(&answer),
            Submission::Refused => Ok(()),
            Submission::Job(job) => match exchange.ended(&job).await? {
                Some(document) => exchange.check_end(&job, &document).await,
                None => Ok(()),
            },
        }
    }
}
