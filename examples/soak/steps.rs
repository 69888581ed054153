//! The steps of an exchange. Each checks a response.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::sleep;
use tower::BoxError;

use crate::{
    client::{Answer, Protocol, causes, is_closed},
    exchange::{Exchange, Outcome, Submission},
    work::{Work, WorkEnd},
};

/// The time between two polls of a job.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl Exchange<'_> {
    /// Submits the work.
    pub(crate) async fn submit(&self, fields: &[(&'static str, &str)]) -> Outcome<Submission> {
        let Some(answer) = self.post(fields).await? else {
            return Ok(Submission::Refused);
        };
        match answer.status {
            StatusCode::ACCEPTED => {
                let job = answer.field("location").to_owned();
                let document = document(&answer)?;
                check(document["self"] == job.as_str(), || {
                    format!("a 202 for {document}")
                })?;
                self.all.tally.accepted.add(1);
                Ok(Submission::Job(job))
            }
            StatusCode::SERVICE_UNAVAILABLE => self.refused(&answer).map(|()| Submission::Refused),
            _ => Ok(Submission::Inline(answer)),
        }
    }

    /// Sends the request. Returns `None` if the server closed the connection.
    pub(crate) async fn post(&self, fields: &[(&'static str, &str)]) -> Outcome<Option<Answer>> {
        let (target, body) = (target(&self.work), self.work.request_body());
        let clients = &self.all.clients;
        let answer = clients
            .send(self.protocol, Method::POST, &target, fields, body)
            .await;
        match (answer, self.protocol) {
            (Err(error), Protocol::Http1) if is_closed(&*error) => {
                self.all.tally.cut.add(1);
                Ok(None)
            }
            (answer, _) => sent(answer).map(Some),
        }
    }

    /// Counts a refusal.
    pub(crate) fn refused(&self, answer: &Answer) -> Outcome {
        expect_status(answer, StatusCode::SERVICE_UNAVAILABLE)?;
        let problem = answer.field("content-type");
        check(problem == "application/problem+json", || {
            format!("refused with {problem}")
        })?;
        self.all.tally.refused.add(1);
        Ok(())
    }

    /// Polls the job until it has ended. Returns `None` if it has been evicted.
    pub(crate) async fn ended(&self, job: &str) -> Outcome<Option<Value>> {
        let mut was_running = false;
        loop {
            let answer = self.send(Method::GET, job, &[]).await?;
            if answer.status == StatusCode::GONE {
                self.all.tally.evicted.add(1);
                self.all.tally.ended.add(1);
                return Ok(None);
            }
            expect_status(&answer, StatusCode::OK)?;
            let document = document(&answer)?;
            if is_ended(&document) {
                self.all.tally.ended.add(1);
                return Ok(Some(document));
            }
            let is_running = document["status"] == "running";
            check(is_running || !was_running, || {
                format!("queued again: {document}")
            })?;
            check(!answer.field("retry-after").is_empty(), || {
                "no Retry-After".to_owned()
            })?;
            was_running = is_running;
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Checks how a job has ended, and its result.
    pub(crate) async fn check_end(&self, job: &str, document: &Value) -> Outcome {
        let (status, code) = match self.work.end {
            WorkEnd::Success => ("succeeded", None),
            WorkEnd::ServerError => ("failed", Some("http_error")),
            WorkEnd::Panic => ("failed", Some("panic")),
            WorkEnd::BrokenBody => ("failed", Some("body_error")),
        };
        let found = document["error"]["code"].as_str();
        if found == Some("result_too_large") {
            self.all.tally.too_large.add(1);
            return Ok(());
        }
        let is_expected = document["status"] == status && found == code;
        check(is_expected, || format!("ended as {document}"))?;
        let answer = self
            .send(Method::GET, &format!("{job}/result"), &[])
            .await?;
        if answer.status == StatusCode::GONE {
            self.all.tally.evicted.add(1);
            return Ok(());
        }
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            // Too many results are read at a time.
            return self.refused(&answer);
        }
        match self.work.end {
            WorkEnd::Success | WorkEnd::ServerError => {
                let result = answer.field("asyncresult");
                check(result == self.work.status().as_str(), || {
                    format!("result of {result}")
                })?;
                self.check_response(&answer)
            }
            WorkEnd::Panic | WorkEnd::BrokenBody => {
                expect_status(&answer, StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    /// Checks the service's own response.
    pub(crate) fn check_response(&self, answer: &Answer) -> Outcome {
        expect_status(answer, self.work.status())?;
        let seed = answer.field("x-seed");
        check(seed == self.work.seed.to_string(), || {
            format!("the result of {seed}")
        })?;
        let bytes = answer.body.len();
        check(answer.body == self.work.response_body(), || {
            format!("another body of {bytes} bytes")
        })
    }

    /// Deletes the job, and checks that it is unknown afterwards.
    pub(crate) async fn delete(&self, job: &str) -> Outcome {
        let answer = self.send(Method::DELETE, job, &[]).await?;
        if answer.status == StatusCode::GONE {
            self.all.tally.evicted.add(1);
            return Ok(());
        }
        expect_status(&answer, StatusCode::NO_CONTENT)?;
        let answer = self.send(Method::GET, job, &[]).await?;
        expect_status(&answer, StatusCode::NOT_FOUND)
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        target: &str,
        fields: &[(&'static str, &str)],
    ) -> Outcome<Answer> {
        let clients = &self.all.clients;
        sent(
            clients
                .send(self.protocol, method, target, fields, Bytes::new())
                .await,
        )
    }
}

fn sent(answer: Result<Answer, BoxError>) -> Outcome<Answer> {
    answer.map_err(|error| {
        let causes: Vec<_> = causes(&*error).map(ToString::to_string).collect();
        format!("failed to send request: {}", causes.join(": "))
    })
}

pub(crate) fn target(work: &Work) -> String {
    format!("/work?{work}")
}

pub(crate) fn document(answer: &Answer) -> Outcome<Value> {
    serde_json::from_slice(&answer.body).map_err(|error| format!("malformed document: {error}"))
}

pub(crate) fn is_ended(document: &Value) -> bool {
    matches!(
        document["status"].as_str(),
        Some("succeeded" | "failed" | "canceled")
    )
}

pub(crate) fn expect_status(answer: &Answer, status: StatusCode) -> Outcome {
    check(answer.status == status, || {
        let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]);
        format!("{} instead of {status}: {body}", answer.status)
    })
}

pub(crate) fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise()) }
}
