//! What this layer itself has to say against a request, as problem documents (RFC 9457).

use std::error;

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::{
    job::Failure,
    limit::Refused,
    middleware::Replay,
    {estimate, telemetry},
};

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A reason of this layer to refuse a request. Each has a type URI that never changes,
/// `urn:problem-type:tower-accepted:` and the name in brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// `body-broken`
    BodyBroken,
    /// `malformed-key`
    MalformedKey,
    /// `key-required`
    KeyRequired,
    /// `bad-query`
    BadQuery,
    /// `cross-site`
    CrossSite,
    /// `not-found`
    NotFound,
    /// `method-not-allowed`, with the methods that are
    MethodNotAllowed(&'static str),
    /// `body-timeout`
    BodyTimeout,
    /// `key-in-use`
    KeyInUse,
    /// `gone`
    Gone,
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
                "The request's body broke off",
                "Nothing was accepted. Send the request again.",
            ),
            Self::MalformedKey => (
                StatusCode::BAD_REQUEST,
                "malformed-key",
                "Not an idempotency key",
                "Send one Idempotency-Key of 1 to 255 printable ASCII characters, best a quoted string.",
            ),
            Self::KeyRequired => (
                StatusCode::BAD_REQUEST,
                "key-required",
                "An idempotency key is required",
                "Send an Idempotency-Key, a new one for each new request and the same when it is repeated.",
            ),
            Self::BadQuery => (
                StatusCode::BAD_REQUEST,
                "bad-query",
                "Not a query of this resource",
                "Use status, limit and cursor, with values as they were given out.",
            ),
            Self::CrossSite => (
                StatusCode::FORBIDDEN,
                "cross-site",
                "Not from another site",
                "A page of another site may not cancel or delete a job.",
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not-found",
                "No such job",
                "Check the address: it is the Location of the 202, and works only for who may see the job.",
            ),
            Self::MethodNotAllowed(_) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Not a method of this resource",
                "Use one of the methods in Allow.",
            ),
            Self::BodyTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "body-timeout",
                "The request's body did not arrive in time",
                "Nothing was accepted. Send the request again.",
            ),
            Self::KeyInUse => (
                StatusCode::CONFLICT,
                "key-in-use",
                "The first request with this key is still being worked on",
                "Follow the job of the first request, or send the request again later.",
            ),
            Self::Gone => (
                StatusCode::GONE,
                "gone",
                "The job has expired",
                "Its result is no longer kept. Submit the request again.",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "The request's body is too large",
                "Nothing was accepted. Send less.",
            ),
            Self::KeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "key-reused",
                "The key was used for another request",
                "Nothing was accepted. Use a new Idempotency-Key for a new request.",
            ),
            Self::OwnerFull => (
                StatusCode::TOO_MANY_REQUESTS,
                "owner-full",
                "Too many of your jobs are unfinished",
                "Nothing was accepted. Send the request again after the time in Retry-After.",
            ),
            Self::FieldsTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "fields-too-large",
                "The request's header fields are too large",
                "Nothing was accepted. Send less in them.",
            ),
            Self::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "full",
                "Too much work is waiting",
                "Nothing was accepted. Send the request again after the time in Retry-After.",
            ),
            Self::Draining => (
                StatusCode::SERVICE_UNAVAILABLE,
                "draining",
                "The server is shutting down",
                "Nothing was accepted. Send the request again after the time in Retry-After.",
            ),
            Self::StoreUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "store-unavailable",
                "Jobs cannot be looked up or accepted right now",
                "Send the request again after the time in Retry-After.",
            ),
        }
    }

    /// Counts it as what kept a request from becoming a job.
    pub(crate) fn counted(self) -> Self {
        let (_, name, _, _) = self.parts();
        telemetry::refused(name);
        self
    }

    pub(crate) fn response(self) -> Response<Replay> {
        let (status, name, title, detail) = self.parts();
        let mut response = document(status, name, title, detail, None);
        match self {
            Self::MethodNotAllowed(allow) => {
                let allow = HeaderValue::from_static(allow);
                response.headers_mut().insert(header::ALLOW, allow);
            }
            Self::OwnerFull
            | Self::Full
            | Self::Draining
            | Self::StoreUnavailable
            | Self::KeyInUse => {
                let seconds = estimate::RETRY_AFTER_WHEN_FULL.into();
                response.headers_mut().insert(header::RETRY_AFTER, seconds);
            }
            _ => {}
        }
        response
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::Full,
            Refused::OwnerFull => Self::OwnerFull,
            Refused::Draining => Self::Draining,
        }
    }
}

/// The answer where the store itself fails. What it says goes to the log.
pub(crate) fn store_failed(error: &(dyn error::Error + 'static)) -> Response<Replay> {
    tracing::error!(error, "the store failed");
    Problem::StoreUnavailable.response()
}

/// What stands at `…/result` for a response that there is none of.
pub(crate) fn no_result(failure: &Failure) -> Response<Replay> {
    let code = failure.code;
    document(
        code.status(),
        code.as_str(),
        "The job ended without a response",
        code.message(),
        Some(code.as_str()),
    )
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
}

fn document(
    status: StatusCode,
    name: &str,
    title: &str,
    detail: &str,
    code: Option<&str>,
) -> Response<Replay> {
    let document = Document {
        r#type: format!("urn:problem-type:tower-accepted:{}", name.replace('_', "-")),
        title,
        status: status.as_u16(),
        detail,
        code,
    };
    let json = serde_json::to_vec(&document).expect("texts and a number");
    let mut response = Response::new(Replay::new(json.into(), None));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    response
}
