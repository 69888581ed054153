//! Why a request is not accepted as a webhook.

use std::{error, fmt};

use http::HeaderName;

/// The error of verifying a webhook.
#[derive(Debug)]
#[non_exhaustive]
pub enum VerifyError {
    /// The request does not have this header field.
    MissingHeader(HeaderName),
    /// The request has this header field more than once.
    RepeatedHeader(HeaderName),
    /// The value of this header field is invalid.
    InvalidHeader(HeaderName),
    /// The timestamp is further in the past than the tolerance.
    TooOld,
    /// The timestamp is further in the future than the tolerance.
    TooNew,
    /// The request has more signatures than a rotation of secrets needs.
    TooManySignatures,
    /// No key has made any of the signatures for this request.
    NoMatch,
    /// The signature is valid, but the body is not the event of a job.
    InvalidBody(serde_json::Error),
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingHeader(name) => write!(f, "missing header field {name}"),
            Self::RepeatedHeader(name) => write!(f, "repeated header field {name}"),
            Self::InvalidHeader(name) => write!(f, "invalid header field {name}"),
            Self::TooOld => f.write_str("the timestamp is too old"),
            Self::TooNew => f.write_str("the timestamp is too far in the future"),
            Self::TooManySignatures => f.write_str("too many signatures"),
            Self::NoMatch => f.write_str("no signature matches a key"),
            Self::InvalidBody(_) => f.write_str("the body is not the event of a job"),
        }
    }
}

impl error::Error for VerifyError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::InvalidBody(source) => Some(source),
            _ => None,
        }
    }
}
