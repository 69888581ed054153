//! The states of a job, and the events that move it from one to the next.

use std::{error, fmt, str::FromStr};

use http::StatusCode;
use serde::{Deserialize, Serialize, Serializer};

/// The status of a job.
///
/// ```text
/// queued ──► running ──► succeeded
///    │          ├──────► failed
///    └──────────┴──────► failed, canceled
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, but the inner service has not been called yet.
    Queued,
    /// The inner service has been called.
    Running,
    /// Ended with a response whose status is below 400.
    Succeeded,
    /// Ended with a response whose status is 400 or above, or without a response.
    Failed,
    /// Canceled by a client, or by [`Jobs::cancel`](crate::Jobs::cancel).
    Canceled,
}

impl Status {
    /// Every status.
    const ALL: [Self; 5] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
    ];

    /// Returns `true` if the job has ended. An ended job never changes again.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// Returns the word of the status document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Returns the status after `event`, or `None` if the event comes too late to change anything.
    ///
    /// This is the whole state machine. Each store applies it in an atomic step of its own.
    pub fn next(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Queued, Event::Started) => Some(Self::Running),
            (Self::Queued | Self::Running, Event::Responded(status)) if status.as_u16() < 400 => {
                Some(Self::Succeeded)
            }
            (Self::Queued | Self::Running, Event::NoResponse(ErrorCode::Canceled)) => {
                Some(Self::Canceled)
            }
            (Self::Queued | Self::Running, Event::Responded(_) | Event::NoResponse(_)) => {
                Some(Self::Failed)
            }
            (Self::Running, Event::Started)
            | (Self::Succeeded | Self::Failed | Self::Canceled, _) => None,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Status {
    type Err = ParseStatusError;

    /// # Errors
    ///
    /// Fails for any text that [`as_str`](Self::as_str) does not return.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|status| status.as_str() == text);
        found.ok_or(ParseStatusError(()))
    }
}

/// The error of parsing a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseStatusError(());

impl fmt::Display for ParseStatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown job status")
    }
}

impl error::Error for ParseStatusError {}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// An event that changes a job's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The inner service was called.
    Started,
    /// The inner service's response is complete, including its body.
    Responded(StatusCode),
    /// The job ends without a response.
    NoResponse(ErrorCode),
}

/// Why a job failed or was canceled: `error.code` of the status document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// `http_error`: the inner service responded with a status of 400 or above. The response is
    /// kept.
    HttpError,
    /// `panic`: the inner service panicked in its call, its future or its response body.
    Panic,
    /// `timeout`: the job exceeded the registry's time limit. Also an error of tower's or tokio's
    /// timeouts, or one with such a source, from the inner service.
    Timeout,
    /// `inner_error`: the inner service returned an error, which is logged and never sent to the
    /// client. Also a response of 101 (Switching Protocols), which a job cannot keep.
    InnerError,
    /// `body_error`: the response's body ended with an error, or its length differs from the
    /// declared one.
    BodyError,
    /// `result_too_large`: the response exceeds the size limit, or there is no room for it.
    ResultTooLarge,
    /// `canceled`: a client or the application canceled the job.
    Canceled,
    /// `shutdown`: the process that ran the job shut down before the call ended.
    Shutdown,
    /// `lost`: the process that ran the job died, and it is not safe to run the job again.
    Lost,
}

impl ErrorCode {
    /// Every code.
    const ALL: [Self; 9] = [
        Self::HttpError,
        Self::Panic,
        Self::Timeout,
        Self::InnerError,
        Self::BodyError,
        Self::ResultTooLarge,
        Self::Canceled,
        Self::Shutdown,
        Self::Lost,
    ];

    /// Returns the word of the status document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HttpError => "http_error",
            Self::Panic => "panic",
            Self::Timeout => "timeout",
            Self::InnerError => "inner_error",
            Self::BodyError => "body_error",
            Self::ResultTooLarge => "result_too_large",
            Self::Canceled => "canceled",
            Self::Shutdown => "shutdown",
            Self::Lost => "lost",
        }
    }

    /// Returns one sentence for people. It contains nothing that the inner service or a client
    /// sent.
    pub fn message(self) -> &'static str {
        match self {
            Self::HttpError => "The service responded with an error, which is kept as the result.",
            Self::Panic => "The service stopped unexpectedly while it worked on this request.",
            Self::Timeout => "The work took longer than this server allows.",
            Self::InnerError => "The service could not be reached, or gave up.",
            Self::BodyError => "The service's response broke off before its end.",
            Self::ResultTooLarge => "The result is larger than this server can keep.",
            Self::Canceled => "The job was canceled.",
            Self::Shutdown => {
                "The server shut down before the work was done. \
                 Check what was done before you submit it again."
            }
            Self::Lost => {
                "The server that worked on this was lost. \
                 Check what was done before you submit it again."
            }
        }
    }

    /// Returns the status that `…/result` has if there is no response.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Canceled => StatusCode::CONFLICT,
            Self::Lost => StatusCode::BAD_GATEWAY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ErrorCode {
    type Err = ParseErrorCodeError;

    /// # Errors
    ///
    /// Fails for any text that [`as_str`](Self::as_str) does not return.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|code| code.as_str() == text);
        found.ok_or(ParseErrorCodeError(()))
    }
}

/// The error of parsing an [`ErrorCode`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseErrorCodeError(());

impl fmt::Display for ParseErrorCodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown error code")
    }
}

impl error::Error for ParseErrorCodeError {}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn events() -> impl Strategy<Value = Event> {
        // All but `HttpError`, which comes with a response.
        let codes = select(&ErrorCode::ALL[1..]);
        prop_oneof![
            Just(Event::Started),
            (200_u16..600)
                .prop_map(|code| Event::Responded(StatusCode::from_u16(code).expect("in range"))),
            codes.prop_map(Event::NoResponse),
        ]
    }

    proptest! {
        #[test]
        fn first_end_is_the_only_one(events in vec(events(), 0..12)) {
            let mut status = Status::Queued;
            let mut end = None;
            for event in events {
                let next = status.next(event);
                if let Some(end) = end {
                    prop_assert_eq!(next, None, "left the terminal state {}", end);
                    continue;
                }
                match event {
                    Event::Started => prop_assert!(next.is_none_or(|next| next == Status::Running)),
                    _ => {
                        prop_assert!(next.is_some_and(Status::is_ended), "stuck on {event:?}");
                        end = next;
                    }
                }
                status = next.unwrap_or(status);
            }
        }
    }

    #[test]
    fn words_round_trip() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(code));
            let json = serde_json::to_string(&code).expect("a word");
            assert_eq!(json, format!("\"{code}\""));
        }
        assert!("Queued".parse::<Status>().is_err() && "".parse::<ErrorCode>().is_err());
    }

    #[test]
    fn response_status_decides_success_or_failure() {
        for (code, status) in [
            (StatusCode::OK, Status::Succeeded),
            (StatusCode::FOUND, Status::Succeeded),
            (StatusCode::BAD_REQUEST, Status::Failed),
            (StatusCode::INTERNAL_SERVER_ERROR, Status::Failed),
        ] {
            assert_eq!(Status::Running.next(Event::Responded(code)), Some(status));
        }
    }
}
