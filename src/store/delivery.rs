//! Deliveries: one webhook for one receiver, with its state.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::{
    job::{JobId, Owner, Snapshot, Status, document, write_timestamp},
    protocol::shown_url,
};

/// The time that a store keeps a delivery after its receiver has acknowledged it, without its
/// body.
pub const DELIVERED_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// The time that a store keeps a delivery that has failed for good. Until then it can be sent
/// again.
pub const FAILED_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// The id of a delivery: that of its job, and the number of the target among the job's.
///
/// A receiver gets it as `webhook-id`. A job ends once, so it names one event at one target, and
/// stays the same for each attempt in each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    job: JobId,
    target: u32,
}

/// The error of parsing a [`DeliveryId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseDeliveryIdError(());

/// One webhook for one receiver.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// The delivery's id.
    pub id: DeliveryId,
    /// The principal that the job belongs to, if there is one.
    pub owner: Option<Owner>,
    /// The name of the event, such as `job.succeeded`.
    pub event: String,
    /// The URL that the webhook is sent to. Its query may be a secret.
    pub url: String,
    /// `true` if the receiver gets a GET without content instead of a signed POST.
    pub is_get: bool,
    /// The content: the same for each attempt. Empty for a GET, and once it is delivered.
    pub body: Bytes,
    /// The time at which the delivery was recorded.
    pub created_at: SystemTime,
    /// The state.
    pub state: DeliveryState,
    /// The number of attempts so far. Zero again once the application redelivers it.
    pub attempts: u32,
    /// The last attempt.
    pub last: Option<Attempt>,
}

/// The state of a [`Delivery`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryState {
    /// The delivery is due at this time. While it is leased, a store may show the end of the lease
    /// instead.
    Pending(SystemTime),
    /// The receiver has acknowledged it.
    Delivered,
    /// No further attempt is made.
    Failed,
}

/// An attempt to send a [`Delivery`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Attempt {
    /// The time at which the attempt ended.
    pub at: SystemTime,
    /// The status of the receiver's response, if it has sent one.
    pub status: Option<u16>,
    /// Why the attempt failed. `None` if the receiver has acknowledged the delivery.
    pub failure: Option<AttemptFailure>,
}

/// Why an attempt to send a [`Delivery`] failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AttemptFailure {
    /// The URL, or an address of its host, is not allowed.
    Forbidden,
    /// The host has no address.
    Dns,
    /// No connection was established.
    Connect,
    /// TLS failed, for example because the certificate is not trusted.
    Tls,
    /// The receiver did not respond in time.
    Timeout,
    /// The connection was closed or reset, or what came was not HTTP.
    Broken,
    /// The receiver responded with a status outside of 2xx.
    Status,
    /// The receiver has failed several times in a row, so no connection was tried.
    Suspended,
}

/// The end of a lease of a [`Delivery`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// The receiver has acknowledged it.
    Delivered(Attempt),
    /// The attempt failed, and no further one is made.
    Failed(Attempt),
    /// The attempt failed. The next one is due at this time.
    Retry(Attempt, SystemTime),
    /// No attempt was completed. It is due at once.
    Release,
}

impl DeliveryId {
    /// Creates the id of a delivery to the target with this number, from 0.
    pub fn new(job: JobId, target: u32) -> Self {
        Self { job, target }
    }

    /// Returns the id of the job.
    pub fn job(self) -> JobId {
        self.job
    }

    /// Returns the number of the target.
    pub fn target(self) -> u32 {
        self.target
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.job, self.target)
    }
}

impl FromStr for DeliveryId {
    type Err = ParseDeliveryIdError;

    /// # Errors
    ///
    /// Fails for any text that `Display` does not write.
    fn from_str(text: &str) -> Result<Self, ParseDeliveryIdError> {
        // An id of a job may have underscores too.
        let (job, target) = text.rsplit_once('_').ok_or(ParseDeliveryIdError(()))?;
        let job = job.parse().map_err(|_| ParseDeliveryIdError(()))?;
        let number = target.parse().map_err(|_| ParseDeliveryIdError(()))?;
        let id = Self::new(job, number);
        // The number has one spelling.
        (id.to_string() == text)
            .then_some(id)
            .ok_or(ParseDeliveryIdError(()))
    }
}

impl fmt::Display for ParseDeliveryIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the id of a delivery")
    }
}

impl std::error::Error for ParseDeliveryIdError {}

impl Delivery {
    /// Returns the deliveries of a job's end, due at once. There are none unless the job has ended
    /// and a target wants the event.
    ///
    /// They depend only on the job's last revision, so a store may compute them again.
    pub fn of_end(job: &Snapshot) -> Vec<Self> {
        let (Some(targets), Some(event)) = (&job.callbacks, end_event(job.status)) else {
            return Vec::new();
        };
        let created_at = job.finished_at.unwrap_or(job.created_at);
        let wanting = (0..).zip(&**targets);
        let wanting = wanting.filter(|(_, target)| target.wants(event));
        wanting
            .map(|(number, target)| Self {
                id: DeliveryId::new(job.id, number),
                owner: job.owner,
                event: event.to_owned(),
                url: target.url.clone(),
                is_get: target.is_get,
                body: if target.is_get {
                    Bytes::new()
                } else {
                    notification(job, event, created_at, &target.monitor)
                },
                created_at,
                state: DeliveryState::Pending(created_at),
                attempts: 0,
                last: None,
            })
            .collect()
    }

    /// Returns the scheme and the authority of the URL: limits on a receiver apply to them.
    pub fn receiver(&self) -> &str {
        receiver(&self.url)
    }

    /// Returns the URL without its query.
    pub fn shown_url(&self) -> &str {
        shown_url(&self.url)
    }

    /// Returns the time of the next attempt, if it is pending.
    pub fn due_at(&self) -> Option<SystemTime> {
        match self.state {
            DeliveryState::Pending(at) => Some(at),
            DeliveryState::Delivered | DeliveryState::Failed => None,
        }
    }

    /// Changes the delivery as its settlement says. The store then keeps it for
    /// [`DELIVERED_RETENTION`] or [`FAILED_RETENTION`], unless it is pending.
    pub fn settle(&mut self, settlement: &Settlement, now: SystemTime) {
        let attempt = match settlement {
            Settlement::Delivered(attempt) => {
                self.state = DeliveryState::Delivered;
                self.body = Bytes::new();
                attempt
            }
            Settlement::Failed(attempt) => {
                self.state = DeliveryState::Failed;
                attempt
            }
            Settlement::Retry(attempt, at) => {
                self.state = DeliveryState::Pending(*at);
                attempt
            }
            Settlement::Release => {
                self.state = DeliveryState::Pending(now);
                return;
            }
        };
        self.attempts += 1;
        self.last = Some(attempt.clone());
    }

    /// Makes a delivery due at once, as if it had never been attempted. Returns `false` if it has
    /// been delivered, since its content is gone.
    pub fn redeliver(&mut self, now: SystemTime) -> bool {
        if self.state == DeliveryState::Delivered {
            return false;
        }
        self.state = DeliveryState::Pending(now);
        self.attempts = 0;
        true
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id)
            .field("event", &self.event)
            .field("url", &self.shown_url())
            .field("state", &self.state)
            .field("attempts", &self.attempts)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl DeliveryState {
    /// Returns the name: `pending`, `delivered` or `failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending(_) => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

impl Attempt {
    /// Creates an attempt to which the receiver responded with this status.
    pub fn answered(at: SystemTime, status: u16) -> Self {
        Self {
            at,
            status: Some(status),
            failure: (!(200..300).contains(&status)).then_some(AttemptFailure::Status),
        }
    }

    /// Creates an attempt without a response.
    pub fn failed(at: SystemTime, failure: AttemptFailure) -> Self {
        Self {
            at,
            status: None,
            failure: Some(failure),
        }
    }
}

impl AttemptFailure {
    /// Returns the name, as in metrics and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Status => "status",
            Self::Suspended => "suspended",
        }
    }
}

/// Returns the name of the event of an end.
fn end_event(status: Status) -> Option<&'static str> {
    match status {
        Status::Succeeded => Some("job.succeeded"),
        Status::Failed => Some("job.failed"),
        Status::Canceled => Some("job.canceled"),
        Status::Queued | Status::Running => None,
    }
}

/// Returns the content of a notification, as Standard Webhooks has it.
pub(crate) fn notification(job: &Snapshot, event: &str, at: SystemTime, monitor: &str) -> Bytes {
    let document = document(job, &job.id.encode(), |to| {
        to.extend_from_slice(monitor.as_bytes());
    });
    let mut body = Vec::with_capacity(document.len() + 96);
    body.extend_from_slice(b"{\"type\":\"");
    body.extend_from_slice(event.as_bytes());
    body.extend_from_slice(b"\",\"timestamp\":\"");
    write_timestamp(&mut body, at);
    body.extend_from_slice(b"\",\"data\":");
    body.extend_from_slice(&document);
    body.push(b'}');
    body.into()
}

/// Returns the scheme and the authority of a URL.
pub(crate) fn receiver(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']);
    &url[..end.map_or(url.len(), |at| start + at)]
}
