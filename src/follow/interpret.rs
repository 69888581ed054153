//! Decides what the response to a follow-up request means.

use http::{HeaderMap, StatusCode, header, response::Parts};

use super::{
    document::{DocumentState, is_json, media_type},
    links::{MonitorField, location},
};
use crate::protocol::{ASYNC_RESULT, PREFER, PREFERENCE_APPLIED, split};

const PROBLEM_JSON: &str = "application/problem+json";

/// The way that a monitor reports the state of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MonitorStyle {
    /// No response has shown it yet.
    Unknown,
    /// With a status document, as a 200 in every state.
    Document,
    /// With a 202 while the job is pending, then with the result or a redirect to it.
    Pending202,
}

/// The known properties of a monitor, which decide how to read its responses.
#[derive(Debug, Clone, Copy)]
pub(super) struct MonitorProfile {
    /// The field of the 202 that named the monitor.
    pub(super) field: MonitorField,
    pub(super) style: MonitorStyle,
    /// If set, a monitor that only `Location` names needs no proof.
    pub(super) location_is_monitor: bool,
}

/// The meaning of a response to a follow-up request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PollOutcome {
    /// The job has not ended. The monitor has this style.
    Pending(MonitorStyle),
    /// The document says that the job succeeded.
    Succeeded,
    /// The document says that the job failed.
    Failed,
    /// The document says that the job was canceled.
    Canceled,
    /// The response is the result.
    Result,
    /// `Location` has the URI of the result.
    ResultElsewhere,
    /// `Location` has the new URI of the requested resource.
    Redirect { is_permanent: bool },
    /// The server cannot answer now. The request may be sent again.
    Unavailable,
    /// The monitor cannot be used.
    Unreadable,
    /// The resource has not proved to be a monitor.
    NotAMonitor,
}

impl MonitorProfile {
    /// Returns `true` if the body must be read because it may be a status document.
    pub(super) fn may_be_document(self, head: &Parts) -> bool {
        let status = head.status;
        // If 202 means pending, any other status is the result, even if that is JSON.
        let is_result = self.style == MonitorStyle::Pending202 && status != StatusCode::ACCEPTED;
        status.is_success() && !is_result && !has_result(&head.headers) && is_json(&head.headers)
    }

    /// Returns `true` if the monitor answers with documents only.
    pub(super) fn requires_document(self) -> bool {
        self.style == MonitorStyle::Document || self.field == MonitorField::OperationLocation
    }

    /// Interprets a monitor's response. `state` is the state in its document, if it has one.
    pub(super) fn interpret(self, head: &Parts, state: Option<DocumentState>) -> PollOutcome {
        let (status, headers) = (head.status, &head.headers);
        if has_result(headers) {
            return PollOutcome::Result;
        }
        let state = match state {
            Some(DocumentState::MaybePending) if self.is_declared() => Some(DocumentState::Pending),
            Some(DocumentState::MaybePending) => None,
            // With 202 the job goes on. An end in its document is the end of something else.
            _ if status == StatusCode::ACCEPTED && !self.requires_document() => None,
            state => state,
        };
        match (status, state) {
            (_, Some(DocumentState::Succeeded)) => PollOutcome::Succeeded,
            (_, Some(DocumentState::Failed)) => PollOutcome::Failed,
            (_, Some(DocumentState::Canceled)) => PollOutcome::Canceled,
            (StatusCode::ACCEPTED, _) if !self.requires_document() => {
                PollOutcome::Pending(MonitorStyle::Pending202)
            }
            (StatusCode::ACCEPTED, _) | (_, Some(_)) => {
                PollOutcome::Pending(MonitorStyle::Document)
            }
            (StatusCode::SEE_OTHER, None) if location(headers).is_some() => {
                PollOutcome::ResultElsewhere
            }
            _ => redirect(head).unwrap_or_else(|| self.interpret_other(head)),
        }
    }

    /// Interprets a response that has no document and is neither a 202 nor a redirect.
    fn interpret_other(self, head: &Parts) -> PollOutcome {
        let status = head.status;
        if is_unavailable(head) {
            PollOutcome::Unavailable
        } else if status.is_redirection() || (self.requires_document() && !status.is_success()) {
            PollOutcome::Unreadable
        } else if self.is_trusted() || media_type(&head.headers) == Some("application/http") {
            PollOutcome::Result
        } else {
            PollOutcome::NotAMonitor
        }
    }

    /// Returns `true` if a response, the field's name or a setting shows that this is a monitor.
    pub(super) fn is_trusted(self) -> bool {
        self.style != MonitorStyle::Unknown
            || self.field != MonitorField::Location
            || self.location_is_monitor
    }

    /// Returns `true` if an unknown `status` in a document is the state of a job.
    fn is_declared(self) -> bool {
        self.requires_document() || self.field == MonitorField::Link
    }
}

/// Interprets the response to a request for the result.
pub(super) fn interpret_result(head: &Parts) -> PollOutcome {
    if has_result(&head.headers) {
        return PollOutcome::Result;
    }
    if let Some(redirect) = redirect(head) {
        return redirect;
    }
    match head.status {
        StatusCode::ACCEPTED => PollOutcome::Pending(MonitorStyle::Unknown),
        StatusCode::SEE_OTHER if location(&head.headers).is_some() => PollOutcome::ResultElsewhere,
        _ if is_unavailable(head) => PollOutcome::Unavailable,
        _ => PollOutcome::Result,
    }
}

/// Interprets the response to a request for the output of a job.
pub(super) fn interpret_stream(head: &Parts) -> PollOutcome {
    if has_result(&head.headers) {
        return PollOutcome::Result;
    }
    if let Some(redirect) = redirect(head) {
        return redirect;
    }
    match head.status {
        StatusCode::ACCEPTED => PollOutcome::Pending(MonitorStyle::Document),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            PollOutcome::NotAMonitor
        }
        _ if is_unavailable(head) => PollOutcome::Unavailable,
        _ => PollOutcome::Unreadable,
    }
}

/// Returns `true` if a response shows that its server reads `Prefer`.
pub(super) fn reads_prefer(headers: &HeaderMap) -> bool {
    headers.contains_key(PREFERENCE_APPLIED)
        || headers
            .get_all(header::VARY)
            .into_iter()
            .flat_map(|line| split(line.as_bytes(), b','))
            .any(|name| name.eq_ignore_ascii_case(PREFER.as_str().as_bytes()))
}

/// Returns `true` if the response declares itself, with `AsyncResult`, to be the result.
fn has_result(headers: &HeaderMap) -> bool {
    headers.contains_key(ASYNC_RESULT)
}

/// Returns the redirect if the requested resource has another URI.
fn redirect(head: &Parts) -> Option<PollOutcome> {
    location(&head.headers)?;
    let is_permanent = match head.status {
        StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT => true,
        StatusCode::FOUND | StatusCode::TEMPORARY_REDIRECT => false,
        _ => return None,
    };
    Some(PollOutcome::Redirect { is_permanent })
}

/// Returns `true` if the status is about the attempt rather than the job.
fn is_unavailable(head: &Parts) -> bool {
    match head.status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => true,
        // For a job that ended without a response, a monitor returns these with a problem document
        // and no `Retry-After`. Any other 502 or 504 comes from a gateway, and a 408 from a layer
        // that limits the time of a request.
        StatusCode::REQUEST_TIMEOUT | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            head.headers.contains_key(header::RETRY_AFTER)
                || !media_type(&head.headers)
                    .is_some_and(|media_type| media_type.eq_ignore_ascii_case(PROBLEM_JSON))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    fn head(status: u16, headers: &[(&str, &str)]) -> Parts {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(()).expect("a response").into_parts().0
    }

    fn profile(field: MonitorField, style: MonitorStyle) -> MonitorProfile {
        MonitorProfile {
            field,
            style,
            location_is_monitor: false,
        }
    }

    const LOCATION: &[(&str, &str)] = &[("location", "/x")];
    const RESULT: &[(&str, &str)] = &[("asyncresult", "503"), ("location", "/x")];
    const PROBLEM: &[(&str, &str)] = &[("content-type", "application/problem+json")];

    #[test]
    fn each_monitor_style_is_interpreted() {
        use MonitorField::{ContentLocation, Link, Location, OperationLocation};
        use MonitorStyle::{Document, Pending202, Unknown};
        use PollOutcome::{
            Canceled, Failed, NotAMonitor, Pending, Redirect, Result, ResultElsewhere, Succeeded,
            Unavailable, Unreadable,
        };
        let none: &[(&str, &str)] = &[];
        for (field, style, status, headers, state, expected) in [
            // A document, wherever it is.
            (
                OperationLocation,
                Unknown,
                200,
                none,
                Some(DocumentState::Pending),
                Pending(Document),
            ),
            (
                OperationLocation,
                Unknown,
                200,
                none,
                Some(DocumentState::MaybePending),
                Pending(Document),
            ),
            (
                OperationLocation,
                Document,
                200,
                none,
                Some(DocumentState::Succeeded),
                Succeeded,
            ),
            (
                OperationLocation,
                Document,
                200,
                none,
                Some(DocumentState::Failed),
                Failed,
            ),
            (
                OperationLocation,
                Document,
                200,
                none,
                Some(DocumentState::Canceled),
                Canceled,
            ),
            (
                Link,
                Unknown,
                200,
                none,
                Some(DocumentState::MaybePending),
                Pending(Document),
            ),
            (
                Location,
                Unknown,
                200,
                none,
                Some(DocumentState::Pending),
                Pending(Document),
            ),
            (
                Location,
                Document,
                200,
                none,
                Some(DocumentState::MaybePending),
                Pending(Document),
            ),
            (
                ContentLocation,
                Unknown,
                200,
                none,
                Some(DocumentState::Succeeded),
                Succeeded,
            ),
            // A 202 means pending, unless a document is required and says otherwise.
            (
                OperationLocation,
                Unknown,
                202,
                none,
                None,
                Pending(Document),
            ),
            (
                OperationLocation,
                Unknown,
                202,
                none,
                Some(DocumentState::Succeeded),
                Succeeded,
            ),
            (Location, Unknown, 202, none, None, Pending(Pending202)),
            (
                Location,
                Unknown,
                202,
                none,
                Some(DocumentState::Succeeded),
                Pending(Pending202),
            ),
            (
                ContentLocation,
                Pending202,
                202,
                none,
                Some(DocumentState::Pending),
                Pending(Pending202),
            ),
            // The result, in the response or elsewhere.
            (Location, Pending202, 200, none, None, Result),
            (Location, Pending202, 404, none, None, Result),
            (Location, Pending202, 204, none, None, Result),
            (Location, Unknown, 503, RESULT, None, Result),
            (OperationLocation, Document, 200, RESULT, None, Result),
            (Link, Unknown, 201, none, None, Result),
            (ContentLocation, Unknown, 200, none, None, Result),
            (ContentLocation, Unknown, 400, none, None, Result),
            (
                ContentLocation,
                Unknown,
                200,
                none,
                Some(DocumentState::MaybePending),
                Result,
            ),
            (Location, Unknown, 303, LOCATION, None, ResultElsewhere),
            (Location, Pending202, 303, LOCATION, None, ResultElsewhere),
            (
                OperationLocation,
                Document,
                303,
                LOCATION,
                None,
                ResultElsewhere,
            ),
            // A redirect or an error.
            (
                Location,
                Unknown,
                307,
                LOCATION,
                None,
                Redirect {
                    is_permanent: false,
                },
            ),
            (
                Location,
                Unknown,
                302,
                LOCATION,
                None,
                Redirect {
                    is_permanent: false,
                },
            ),
            (
                OperationLocation,
                Unknown,
                308,
                LOCATION,
                None,
                Redirect { is_permanent: true },
            ),
            (OperationLocation, Unknown, 308, none, None, Unreadable),
            (Location, Unknown, 304, none, None, Unreadable),
            (OperationLocation, Document, 429, none, None, Unavailable),
            (Location, Pending202, 503, none, None, Unavailable),
            (Location, Pending202, 504, none, None, Unavailable),
            (Location, Pending202, 408, none, None, Unavailable),
            (Location, Pending202, 408, PROBLEM, None, Result),
            (OperationLocation, Document, 408, none, None, Unavailable),
            (Location, Pending202, 504, PROBLEM, None, Result),
            (OperationLocation, Document, 404, none, None, Unreadable),
            (OperationLocation, Unknown, 500, none, None, Unreadable),
            (Location, Document, 410, none, None, Unreadable),
            // A Location must prove to be a monitor.
            (Location, Unknown, 200, none, None, NotAMonitor),
            (
                Location,
                Unknown,
                200,
                none,
                Some(DocumentState::MaybePending),
                NotAMonitor,
            ),
            (Location, Unknown, 404, none, None, NotAMonitor),
            (Location, Unknown, 500, none, None, NotAMonitor),
        ] {
            let found = profile(field, style).interpret(&head(status, headers), state);
            let case = format!("{field:?} {style:?} {status} {headers:?} {state:?}");
            assert_eq!(found, expected, "{case}");
        }
    }

    #[test]
    fn location_is_trusted_if_configured() {
        let profile = MonitorProfile {
            location_is_monitor: true,
            ..profile(MonitorField::Location, MonitorStyle::Unknown)
        };
        for status in [200, 204, 404] {
            let outcome = profile.interpret(&head(status, &[]), None);
            assert_eq!(outcome, PollOutcome::Result);
        }
    }

    #[test]
    fn result_is_final_unless_delayed_or_elsewhere() {
        for (status, headers, expected) in [
            (200, &[][..], PollOutcome::Result),
            (404, &[], PollOutcome::Result),
            (304, &[], PollOutcome::Result),
            (303, &[], PollOutcome::Result),
            (500, PROBLEM, PollOutcome::Result),
            (504, PROBLEM, PollOutcome::Result),
            (503, RESULT, PollOutcome::Result),
            (303, RESULT, PollOutcome::Result),
            (202, RESULT, PollOutcome::Result),
            (202, &[], PollOutcome::Pending(MonitorStyle::Unknown)),
            (503, PROBLEM, PollOutcome::Unavailable),
            (429, &[], PollOutcome::Unavailable),
            (408, &[], PollOutcome::Unavailable),
            (408, RESULT, PollOutcome::Result),
            (502, &[], PollOutcome::Unavailable),
            (303, LOCATION, PollOutcome::ResultElsewhere),
            (
                302,
                LOCATION,
                PollOutcome::Redirect {
                    is_permanent: false,
                },
            ),
            (301, LOCATION, PollOutcome::Redirect { is_permanent: true }),
        ] {
            let head = head(status, headers);
            assert_eq!(interpret_result(&head), expected, "{status} {headers:?}");
        }
    }

    #[test]
    fn server_shows_that_it_reads_prefer() {
        for (headers, expected) in [
            (&[("vary", "Prefer")][..], true),
            (&[("vary", "accept"), ("vary", "origin, PREFER")], true),
            (&[("preference-applied", "respond-async")], true),
            (&[("vary", "*")], false),
            (&[("vary", "prefers")], false),
            (&[], false),
        ] {
            let head = head(202, headers);
            assert_eq!(reads_prefer(&head.headers), expected, "{headers:?}");
        }
    }
}
