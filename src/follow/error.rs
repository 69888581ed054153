//! The errors of the following layer.

use std::{error::Error, fmt, time::Duration};

use http::{StatusCode, Uri};

use super::StatusDocument;
use crate::protocol::BoxError;

/// The error of a [`FollowAccepted`](super::FollowAccepted) or of a
/// [`FollowBody`](super::FollowBody), whose client has the error type `E`.
///
/// ```
/// use std::io;
///
/// use tower_accepted::follow::FollowError;
///
/// fn advice(error: &FollowError<io::Error>) -> String {
///     match error.stopped() {
///         Some(stopped) => format!("{error}. Look at {} first.", stopped.monitor()),
///         None => format!("{error}. Check the network."),
///     }
/// }
/// # let _ = advice;
/// ```
#[derive(Debug)]
pub enum FollowError<E> {
    /// The client failed to send the original request, was not ready to, or failed to read the body
    /// of a response.
    ///
    /// Displays like the client's error and has the same source.
    Service(E),
    /// The server accepted the request, but the layer could not obtain its response, or only a part
    /// of it.
    ///
    /// A retry may run the request a second time.
    Stopped(Box<Stopped>),
}

/// The argument of [`try_allow_origin`](super::FollowAcceptedLayer::try_allow_origin) is not an
/// origin: `scheme://host[:port]`, with the scheme `http` or `https`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidOrigin(pub(super) String);

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = &self.0;
        write!(
            f,
            "invalid origin {origin:?}: expected http(s)://HOST[:PORT]"
        )
    }
}

impl Error for InvalidOrigin {}

/// The error of a request that the server accepted, but whose response is not available.
///
/// The layer has sent the request once. Its work may be done or may still run; the
/// [`monitor`](Self::monitor) shows which.
#[derive(Debug)]
pub struct Stopped {
    monitor: Uri,
    reason: Reason,
    document: Option<StatusDocument>,
}

/// The reason why the layer stopped following a job.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The job failed and has no response, or only a part of it. Its
    /// [document](Stopped::document) has the cause, and as `partial` the length of the part.
    Failed,
    /// The job was canceled.
    Canceled,
    /// A response named this URI as the next step, but its origin is not allowed, or it leads from
    /// `https` to `http`. The layer has not contacted it.
    OtherOrigin(Uri),
    /// A response named the next step with a malformed reference, or with a scheme that is not
    /// HTTP's.
    InvalidUri,
    /// One request was redirected more often than this limit.
    TooManyRedirects(u32),
    /// The job had not ended after this number of polls.
    TooManyPolls(u32),
    /// The job had not ended, or its response had no head, within this time after the 202. For a
    /// body: it was not resumed within this time after a break.
    TimedOut(Duration),
    /// Too many consecutive requests got no response. Contains the last error, which is the
    /// client's own or a timeout.
    Unreachable(Box<dyn Error + Send + Sync>),
    /// Too many consecutive requests failed. The last one had this status: 429, 502, 503 or 504.
    Unavailable(StatusCode),
    /// The monitor returned a status that says nothing about the job, such as 404.
    UnexpectedStatus(StatusCode),
    /// A status document is larger than this number of bytes.
    DocumentTooLarge(usize),
    /// The job was run again after a part of its response was handed out, and its new response may
    /// differ. Only the error of a body that is resumed.
    Restarted,
    /// The response broke off, and too many consecutive attempts to resume it got no further byte.
    /// Contains the last error, which is the client's own or says that the body ended early. Only
    /// the error of a body that is resumed.
    BrokenOff(Box<dyn Error + Send + Sync>),
    /// The response broke off, and what the server has differs from what the client received. A
    /// layer or proxy in between may have decoded or coded the content. Only the error of a body
    /// that is resumed.
    Altered,
}

impl<E> FollowError<E> {
    /// Returns the error of an accepted request, or `None` for an error of the client.
    pub fn stopped(&self) -> Option<&Stopped> {
        match self {
            Self::Service(_) => None,
            Self::Stopped(stopped) => Some(stopped),
        }
    }

    /// Boxes the client's error or the [`Stopped`], so that either can be downcast.
    ///
    /// `FollowError<E>` implements [`Error`] only if `E` does, and a boxed error does not. To put
    /// layers of tower around a client with boxed errors, use this method with `map_err`.
    pub fn into_boxed(self) -> Box<dyn Error + Send + Sync>
    where
        E: Into<BoxError>,
    {
        match self {
            Self::Service(error) => error.into(),
            Self::Stopped(stopped) => stopped,
        }
    }
}

impl<E: fmt::Display> fmt::Display for FollowError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(error) => error.fmt(f),
            Self::Stopped(stopped) => stopped.fmt(f),
        }
    }
}

impl<E: Error> Error for FollowError<E> {
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

    /// Returns the reason.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// Returns the last known URI of the job's monitor.
    ///
    /// The URI may be all that a client needs to read the result, so the error does not display it.
    pub fn monitor(&self) -> &Uri {
        &self.monitor
    }

    /// Returns the last status document, if the server sent one.
    ///
    /// A job that [failed](Reason::Failed) or was [canceled](Reason::Canceled) always has one.
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
            Reason::InvalidUri => f.write_str("the job leads to an invalid URI"),
            Reason::TooManyRedirects(limit) => write!(f, "more than {limit} redirects"),
            Reason::TooManyPolls(limit) => {
                write!(f, "the job has not ended after {limit} polls")
            }
            Reason::TimedOut(limit) => write!(f, "the job has not ended within {limit:?}"),
            Reason::Unreachable(_) => f.write_str("the job's monitor cannot be reached"),
            Reason::Unavailable(status) => {
                write!(f, "the job's monitor is unavailable: {status}")
            }
            Reason::UnexpectedStatus(status) => {
                write!(
                    f,
                    "the job's monitor returned an unexpected status: {status}"
                )
            }
            Reason::DocumentTooLarge(limit) => {
                write!(f, "the job's status document is larger than {limit} bytes")
            }
            Reason::Restarted => f.write_str("the job was run again, and its response restarted"),
            Reason::BrokenOff(_) => f.write_str("the response broke off and cannot be resumed"),
            Reason::Altered => {
                f.write_str("the response broke off, and its content was altered on the way")
            }
        }
    }
}

impl Error for Stopped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.reason {
            Reason::Unreachable(source) | Reason::BrokenOff(source) => Some(&**source),
            _ => None,
        }
    }
}
