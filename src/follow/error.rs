use std::{error::Error, fmt, time::Duration};

use http::{StatusCode, Uri};
use tower::BoxError;

use super::StatusDocument;

/// Why there is no response.
#[derive(Debug)]
pub enum FollowError {
    /// The original request failed. This is the service's own error, and all that is displayed.
    Service(BoxError),
    /// It was accepted, and could not be followed to a response.
    Stopped(Box<Stopped>),
}

/// Why a job that was accepted could not be followed to a response.
///
/// The original request was sent, once, and answered 202: what it asked for may have been done, or
/// may still be. Whoever sends it again may have it done twice. [`monitor`](Self::monitor) is where
/// to look.
#[derive(Debug)]
pub struct Stopped {
    monitor: Uri,
    reason: Reason,
    document: Option<StatusDocument>,
}

/// What stood in the way.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The job failed and left no response: [`Stopped::document`] says why.
    Failed,
    /// The job was canceled.
    Canceled,
    /// The way led to this address, on an origin that is not allowed, or from `https` to `http`.
    OtherOrigin(Uri),
    /// The way led to what is no address of HTTP's, or a redirect did not say where to.
    NoAddress,
    /// One question was redirected more often than this.
    TooManyRedirects(u32),
    /// The job had not ended after so many questions.
    TooManyPolls(u32),
    /// The job had not ended, or its response had not begun, so long after the 202.
    TimedOut(Duration),
    /// Too many questions in a row had no answer; the last one for this.
    Unreachable(BoxError),
    /// Too many questions in a row were put off; the last one with this status: 429, 502, 503 or 504.
    Unavailable(StatusCode),
    /// The monitor could not be read: this status is about the monitor, not about the job.
    Unreadable(StatusCode),
    /// A status document is larger than this, in bytes.
    DocumentTooLarge(usize),
}

impl FollowError {
    pub(super) fn service(error: impl Into<BoxError>) -> Self {
        Self::Service(error.into())
    }

    /// Why a job could not be followed; `None` where the original request failed.
    pub fn stopped(&self) -> Option<&Stopped> {
        match self {
            Self::Service(_) => None,
            Self::Stopped(stopped) => Some(stopped),
        }
    }
}

impl fmt::Display for FollowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(error) => error.fmt(f),
            Self::Stopped(stopped) => stopped.fmt(f),
        }
    }
}

impl Error for FollowError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Service(error) => error.source(),
            Self::Stopped(stopped) => stopped.source(),
        }
    }
}

impl Stopped {
    pub(super) fn new(monitor: Uri, reason: Reason, document: Option<StatusDocument>) -> Self {
        Self {
            monitor,
            reason,
            document,
        }
    }

    /// What stood in the way.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// The job's monitor, as far as it was known last. Such an address may be all that it takes to
    /// see the result: it is not in what this error displays.
    pub fn monitor(&self) -> &Uri {
        &self.monitor
    }

    /// The last status document, where there was one: of a job that [failed](Reason::Failed) or was
    /// [canceled](Reason::Canceled) always.
    pub fn document(&self) -> Option<&StatusDocument> {
        self.document.as_ref()
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Failed => {
                f.write_str("the job failed")?;
                let document = self.document();
                if let Some(code) = document.and_then(StatusDocument::error_code) {
                    write!(f, ": {code}")?;
                }
                if let Some(message) = document.and_then(StatusDocument::error_message) {
                    write!(f, ": {message}")?;
                }
                Ok(())
            }
            Reason::Canceled => f.write_str("the job was canceled"),
            Reason::OtherOrigin(_) => f.write_str("the job leads to an origin that is not allowed"),
            Reason::NoAddress => f.write_str("the job leads to what is no address"),
            Reason::TooManyRedirects(limit) => write!(f, "more than {limit} redirects"),
            Reason::TooManyPolls(limit) => write!(f, "the job has not ended after {limit} polls"),
            Reason::TimedOut(limit) => write!(f, "the job has not ended within {limit:?}"),
            Reason::Unreachable(_) => f.write_str("the job's monitor cannot be reached"),
            Reason::Unavailable(status) => {
                write!(
                    f,
                    "the job's monitor is not available, but answers {status}"
                )
            }
            Reason::Unreadable(status) => {
                write!(f, "the job's monitor cannot be read, but answers {status}")
            }
            Reason::DocumentTooLarge(limit) => {
                write!(f, "the job's status document is larger than {limit} bytes")
            }
        }
    }
}

impl Error for Stopped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.reason {
            Reason::Unreachable(source) => Some(&**source),
            _ => None,
        }
    }
}
