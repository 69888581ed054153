//! A client that submits requests, and reads jobs and their results.

use std::time::Duration;

use reqwest::Response;
use serde_json::Value;
use tokio::time::sleep;
use tower::BoxError;

use crate::task::Task;

/// The time between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

pub(crate) struct Client {
    http: reqwest::Client,
    address: String,
}

/// An answer of the server.
pub(crate) struct Answer {
    pub(crate) body: String,
    pub(crate) etag: String,
    /// The path of the monitor, from a 202.
    pub(crate) location: String,
}

impl Answer {
    async fn read(response: Response) -> Result<Self, BoxError> {
        let response = response.error_for_status()?;
        let field = |name: &str| {
            let value = response.headers().get(name);
            let value = value.and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (etag, location) = (field("etag"), field("location"));
        Ok(Self {
            body: response.text().await?,
            etag,
            location,
        })
    }
}

impl Client {
    pub(crate) fn new(address: String) -> Self {
        Self {
            http: reqwest::Client::new(),
            address,
        }
    }

    pub(crate) async fn submit(&self, task: &Task) -> Result<Answer, BoxError> {
        let url = format!("http://{}{}", self.address, task.path);
        let mut request = self.http.request(task.method.parse()?, url);
        if let Some(key) = task.key {
            request = request.header("idempotency-key", format!("{key:?}"));
        }
        Answer::read(request.send().await?).await
    }

    /// Polls until a job has this status. Fails if it ends with another one.
    pub(crate) async fn wait_for(&self, location: &str, status: &str) -> Result<(), BoxError> {
        loop {
            let document = self.document(location).await?;
            if document["status"] == status {
                return Ok(());
            }
            if document["finishedAt"].is_string() {
                return Err(format!("a job ended before it was seen as {status}").into());
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Polls until a job has ended, and returns its document.
    pub(crate) async fn end(&self, location: &str) -> Result<Value, BoxError> {
        loop {
            let document = self.document(location).await?;
            if document["finishedAt"].is_string() {
                return Ok(document);
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns the result of a job.
    pub(crate) async fn result(&self, location: &str) -> Result<Answer, BoxError> {
        let url = format!("http://{}{location}/result", self.address);
        Answer::read(self.http.get(url).send().await?).await
    }

    async fn document(&self, location: &str) -> Result<Value, BoxError> {
        let url = format!("http://{}{location}", self.address);
        let answer = Answer::read(self.http.get(url).send().await?).await?;
        Ok(serde_json::from_str(&answer.body)?)
    }
}
