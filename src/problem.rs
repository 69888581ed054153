//! The layer's own refusals, as problem documents (RFC 9457).

use std::error;

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::{
    estimate::RETRY_AFTER_WHEN_FULL, job::Failure, limit::PermitError, store::ResultBody, telemetry,
};

/// The `Retry-After` during a drain, in seconds: clients have to come back soon, and the next
/// process may answer already.
pub(crate) const RETRY_AFTER_IN_DRAIN: u64 = 1;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A reason for the layer to refuse a request.
///
/// Each has a type URI that never changes: `urn:problem-type:tower-accepted:` and the name below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// `body-broken`
    BodyBroken,
    /// `malformed-key`
    MalformedKey,
    /// `key-required`
    KeyRequired,
    /// `bad-callback`
    #[cfg(feature = "webhook")]
    BadCallback,
    /// `bad-query`
    BadQuery,
    /// `bad-offset`, with the number of bytes that are available if the offset is beyond them
    BadOffset(Option<u64>),
    /// `cross-site`
    CrossSite,
    /// `not-found`
    NotFound,
    /// `method-not-allowed`, with the methods that are allowed
    MethodNotAllowed(&'static str),
    /// `body-timeout`
    BodyTimeout,
    /// `key-in-use`
    KeyInUse,
    /// `gone`
    Gone,
    /// `precondition-failed`
    PreconditionFailed,
    /// `output-restarted`
    OutputRestarted,
    /// `body-too-large`
    BodyTooLarge,
    /// `key-reused`
    KeyReused,
    /// `owner-full`
    OwnerFull,
    /// `fields-too-large`
    FieldsTooLarge,
    /// `full`
    Full,
    /// `busy`
    Busy,
    /// `draining`
    Draining,
    /// `store-unavailable`
    StoreUnavailable,
}

impl Problem {
    fn parts(self) -> (StatusCode, &'static str, &'static str, &'static str) {
        match self {
            Self::BodyBroken => (
                StatusCode::BAD_REQUEST,
                "body-broken",
                "The request body is incomplete",
                "Nothing was accepted. Send the request again.",
            ),
            Self::MalformedKey => (
                StatusCode::BAD_REQUEST,
                "malformed-key",
                "Invalid idempotency key",
                "Send one Idempotency-Key of 1 to 255 printable ASCII characters, preferably a \
                 quoted string.",
            ),
            Self::KeyRequired => (
                StatusCode::BAD_REQUEST,
                "key-required",
                "Idempotency key required",
                "Send an Idempotency-Key: a new one for each new request, the same one for a \
                 repeat.",
            ),
            #[cfg(feature = "webhook")]
            Self::BadCallback => (
                StatusCode::BAD_REQUEST,
                "bad-callback",
                "Callback not allowed",
                "Nothing was accepted. Send one X-Callback-Url, with a URL that this service may \
                 notify, or none.",
            ),
            Self::BadQuery => (
                StatusCode::BAD_REQUEST,
                "bad-query",
                "Invalid query",
                "Use status, limit and cursor, with values from an earlier response.",
            ),
            Self::BadOffset(_) => (
                StatusCode::BAD_REQUEST,
                "bad-offset",
                "Invalid offset",
                "Use whole numbers for offset and run, and an offset within the output. If the \
                 offset is beyond it, the member available is its length so far.",
            ),
            Self::CrossSite => (
                StatusCode::FORBIDDEN,
                "cross-site",
                "Cross-site request refused",
                "A page of this origin cannot cancel a job.",
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not-found",
                "Job not found",
                "Use the Location of the 202 response. It is only visible to the job's owner.",
            ),
            Self::MethodNotAllowed(_) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Method not allowed",
                "Use one of the methods in Allow.",
            ),
            Self::BodyTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "body-timeout",
                "The request body took too long",
                "Nothing was accepted. Send the request again.",
            ),
            Self::KeyInUse => (
                StatusCode::CONFLICT,
                "key-in-use",
                "The first request with this key is unfinished",
                "Follow the job of the first request, or repeat the request later.",
            ),
            Self::Gone => (
                StatusCode::GONE,
                "gone",
                "The job has expired",
                "Its result is no longer available. To submit the request again, use a new \
                 Idempotency-Key.",
            ),
            Self::PreconditionFailed => (
                StatusCode::PRECONDITION_FAILED,
                "precondition-failed",
                "The request's precondition failed",
                "Nothing was changed. Get the current representation and its ETag.",
            ),
            Self::OutputRestarted => (
                StatusCode::PRECONDITION_FAILED,
                "output-restarted",
                "The output was produced anew",
                "The work was run again, and its output may differ. Drop what you have, and read \
                 it from its start.",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "The request body is too large",
                "Nothing was accepted. Send a smaller body.",
            ),
            Self::KeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "key-reused",
                "The key belongs to another request",
                "Nothing was accepted. Use a new Idempotency-Key for a new request.",
            ),
            Self::OwnerFull => (
                StatusCode::TOO_MANY_REQUESTS,
                "owner-full",
                "You have too many unfinished jobs",
                "Nothing was accepted. Repeat the request after the time in Retry-After.",
            ),
            Self::FieldsTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "fields-too-large",
                "The request header fields are too large",
                "Nothing was accepted. Send smaller fields.",
            ),
            Self::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "full",
                "The server is at capacity",
                "Nothing was accepted. Repeat the request after the time in Retry-After.",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "The result cannot be sent yet",
                "Too many results are being sent, or the store is slow. Repeat the request after \
                 the time in Retry-After.",
            ),
            Self::Draining => (
                StatusCode::SERVICE_UNAVAILABLE,
                "draining",
                "The server is shutting down",
                "Nothing was accepted. Repeat the request after the time in Retry-After.",
            ),
            Self::StoreUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "store-unavailable",
                "Jobs are temporarily unavailable",
                "Repeat the request after the time in Retry-After.",
            ),
        }
    }

    /// Counts this as the reason why a request did not become a job.
    pub(crate) fn counted(self) -> Self {
        let (_, name, _, _) = self.parts();
        telemetry::refused(name);
        self
    }

    pub(crate) fn response(self) -> Response<ResultBody> {
        let (status, name, title, detail) = self.parts();
        let members = match self {
            Self::BadOffset(available) => ProblemMembers {
                available,
                ..ProblemMembers::default()
            },
            _ => ProblemMembers::default(),
        };
        let mut response = document(status, name, title, detail, members);
        match self {
            Self::MethodNotAllowed(allow) => {
                let allow = HeaderValue::from_static(allow);
                response.headers_mut().insert(header::ALLOW, allow);
            }
            Self::Draining => {
                let seconds = RETRY_AFTER_IN_DRAIN.into();
                response.headers_mut().insert(header::RETRY_AFTER, seconds);
            }
            Self::OwnerFull | Self::Full | Self::Busy | Self::StoreUnavailable | Self::KeyInUse => {
                let seconds = RETRY_AFTER_WHEN_FULL.into();
                response.headers_mut().insert(header::RETRY_AFTER, seconds);
            }
            _ => {}
        }
        response
    }
}

impl From<PermitError> for Problem {
    fn from(error: PermitError) -> Self {
        match error {
            PermitError::Full => Self::Full,
            PermitError::OwnerFull => Self::OwnerFull,
            PermitError::Draining => Self::Draining,
        }
    }
}

/// Logs an error of the store, which clients never see.
pub(crate) fn log_store_error(error: &(dyn error::Error + 'static)) {
    tracing::error!(error, "store failed");
}

/// Returns what `…/result` serves for a job that ended without a response.
pub(crate) fn no_result(failure: &Failure) -> Response<ResultBody> {
    let code = failure.code;
    document(
        code.status(),
        code.as_str(),
        "The job ended without a response",
        code.message(),
        ProblemMembers {
            code: Some(code.as_str()),
            ..ProblemMembers::default()
        },
    )
}

#[derive(Serialize)]
struct ProblemDocument<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    members: ProblemMembers<'a>,
}

/// The members of some problems.
#[derive(Default, Serialize)]
struct ProblemMembers<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    /// The length of an output so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<u64>,
}

fn document(
    status: StatusCode,
    name: &str,
    title: &str,
    detail: &str,
    members: ProblemMembers<'_>,
) -> Response<ResultBody> {
    let document = ProblemDocument {
        r#type: format!("urn:problem-type:tower-accepted:{}", name.replace('_', "-")),
        title,
        status: status.as_u16(),
        detail,
        members,
    };
    let json = serde_json::to_vec(&document).expect("strings and a number");
    let mut response = Response::new(ResultBody::new(json.into(), None));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    response
}
