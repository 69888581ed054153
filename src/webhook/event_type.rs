//! The types of events that webhooks are sent for.

use std::{borrow::Cow, error, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// An event in the life of a job: the member `type` of a webhook's body.
///
/// It parses from its name, and is displayed and serialized as its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EventType {
    /// `job.started`: the inner service was called.
    JobStarted,
    /// `job.progress`: the job reported progress.
    JobProgress,
    /// `job.succeeded`: the job ended with a response whose status is below 400.
    JobSucceeded,
    /// `job.failed`: the job ended without a response, or with a status of 400 or above.
    JobFailed,
    /// `job.canceled`: a client or the application canceled the job.
    JobCanceled,
}

impl EventType {
    /// Every type, in the order of a job's life.
    pub const ALL: [Self; 5] = [
        Self::JobStarted,
        Self::JobProgress,
        Self::JobSucceeded,
        Self::JobFailed,
        Self::JobCanceled,
    ];

    /// Returns the name, such as `job.succeeded`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JobStarted => "job.started",
            Self::JobProgress => "job.progress",
            Self::JobSucceeded => "job.succeeded",
            Self::JobFailed => "job.failed",
            Self::JobCanceled => "job.canceled",
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for EventType {
    type Err = ParseEventTypeError;

    /// # Errors
    ///
    /// Fails for any text that [`as_str`](Self::as_str) does not return.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|event| event.as_str() == text);
        found.ok_or(ParseEventTypeError(()))
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The error of parsing an [`EventType`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseEventTypeError(());

impl fmt::Display for ParseEventTypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown event type")
    }
}

impl error::Error for ParseEventTypeError {}
