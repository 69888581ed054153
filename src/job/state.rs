use std::fmt;

use http::StatusCode;
use serde::{Deserialize, Serialize, Serializer};

/// Where a job stands.
///
/// ```text
/// queued ──► running ──► succeeded
///    │          ├──────► failed
///    └──────────┴──────► failed, canceled
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted; the inner service has not been called yet (it is not ready).
    Queued,
    /// The inner service has been called.
    Running,
    /// Ended with a response whose status is below 400.
    Succeeded,
    /// Ended with a response of 400 or above, or with none.
    Failed,
    /// Ended by a client, or by [`Jobs::cancel`](crate::Jobs::cancel).
    Canceled,
}

impl Status {
    /// Whether the job has ended. An ended job never changes again.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// The word of the status document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// The status of this word.
    pub(crate) fn of(word: &str) -> Option<Self> {
        let all = [
            Self::Queued,
            Self::Running,
            Self::Succeeded,
            Self::Failed,
            Self::Canceled,
        ];
        all.into_iter().find(|status| status.as_str() == word)
    }

    /// The state after `event`, or `None` where the event comes too late to change anything.
    ///
    /// This is the whole state machine; stores apply it, each in its own atomic step.
    pub fn next(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Queued, Event::Started) => Some(Self::Running),
            (Self::Queued | Self::Running, Event::Responded(status)) if status.as_u16() < 400 => {
                Some(Self::Succeeded)
            }
            (Self::Queued | Self::Running, Event::Broke(ErrorCode::Canceled)) => {
                Some(Self::Canceled)
            }
            (Self::Queued | Self::Running, Event::Responded(_) | Event::Broke(_)) => {
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

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The inner service was called.
    Started,
    /// The inner service's response is complete, its body included.
    Responded(StatusCode),
    /// The job ends without a response.
    Broke(ErrorCode),
}

/// Why a job failed or was canceled: `error.code` of the status document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// `http_error`: the inner service answered with a status of 400 or above. The response is kept.
    HttpError,
    /// `panic`: the inner service panicked, in its call, its future or its response body.
    Panic,
    /// `timeout`: the job outlived the registry's limit.
    Timeout,
    /// `inner_error`: the inner service returned an error. What it says goes to the log, never to
    /// the client. Also an answer of 101 (Switching Protocols), which no job can keep.
    InnerError,
    /// `body_error`: the response's body broke, or its length was not the one declared.
    BodyError,
    /// `result_too_large`: the response is over the limit for one, or there is no room for it.
    ResultTooLarge,
    /// `canceled`: somebody canceled it.
    Canceled,
    /// `shutdown`: the process that ran the job went away in good order.
    Shutdown,
    /// `lost`: the process that ran the job is gone, and running it again would not be safe.
    Lost,
}

impl ErrorCode {
    /// The word of the status document.
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

    /// One sentence for a person, with nothing in it that the inner service or a client said.
    pub fn message(self) -> &'static str {
        match self {
            Self::HttpError => "The service answered with an error; it is kept as the result.",
            Self::Panic => "The service stopped unexpectedly while working on this request.",
            Self::Timeout => "The work took longer than is allowed here.",
            Self::InnerError => "The service could not be reached or gave up.",
            Self::BodyError => "The service's response broke off before its end.",
            Self::ResultTooLarge => "The result is larger than can be kept here.",
            Self::Canceled => "The job was canceled.",
            Self::Shutdown => {
                "The server shut down before the work was done. Find out what was done before submitting it again."
            }
            Self::Lost => {
                "The server working on this was lost. Find out what was done before submitting it again."
            }
        }
    }

    /// The status that stands for the missing response at `…/result`.
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn events() -> impl Strategy<Value = Event> {
        let codes = select(vec![
            ErrorCode::Panic,
            ErrorCode::Timeout,
            ErrorCode::InnerError,
            ErrorCode::BodyError,
            ErrorCode::ResultTooLarge,
            ErrorCode::Canceled,
            ErrorCode::Shutdown,
            ErrorCode::Lost,
        ]);
        prop_oneof![
            Just(Event::Started),
            (200_u16..600)
                .prop_map(|code| Event::Responded(StatusCode::from_u16(code).expect("in range"))),
            codes.prop_map(Event::Broke),
        ]
    }

    proptest! {
        #[test]
        fn the_first_end_is_the_only_one(events in vec(events(), 0..12)) {
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
    fn the_status_code_tells_success_from_failure() {
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
