use http::{HeaderMap, StatusCode, header, response::Parts};

use super::{
    document::{Stand, is_json, media_type},
    links::{Named, location},
};
use crate::protocol::{ASYNC_RESULT, PREFER, PREFERENCE_APPLIED, split};

const PROBLEM_JSON: &str = "application/problem+json";

/// What kind of monitor this is, as far as its answers have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Unknown,
    /// 200 with a status document, whatever the job's state.
    Document,
    /// 202 while the job is pending, and then the result, or the way to it.
    Pending202,
}

/// What is known of the one who answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) named: Named,
    pub(super) manner: Manner,
    /// Whether a monitor that only `Location` names need not prove to be one.
    pub(super) location_is_monitor: bool,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The job has not ended. The monitor is of this kind.
    Pending(Manner),
    Succeeded,
    /// It failed, or was canceled.
    Failed,
    Canceled,
    /// This is the result.
    Result,
    /// The result is where `Location` says.
    ResultElsewhere,
    /// Ask where `Location` says, `true`: from now on.
    Moved(bool),
    /// No answer now; another time perhaps.
    Unavailable,
    /// There is no reading this monitor.
    Unreadable,
    /// Whatever this is, it is not a monitor.
    NoMonitor,
}

impl Asked {
    /// Whether an answer may have a status document in it, so that it is worth reading.
    pub(super) fn may_be_document(self, head: &Parts) -> bool {
        let status = head.status;
        // Where 202 means pending, anything else is the result, documents of its own included.
        let is_result = self.manner == Manner::Pending202 && status != StatusCode::ACCEPTED;
        status.is_success() && !is_result && !has_result(&head.headers) && is_json(&head.headers)
    }

    /// Whether only a document will do.
    pub(super) fn must_be_document(self) -> bool {
        self.manner == Manner::Document || self.named == Named::OperationLocation
    }

    /// What a monitor's answer means; `stand` is what its document tells, if it is one.
    pub(super) fn verdict(self, head: &Parts, stand: Option<Stand>) -> Verdict {
        let (status, headers) = (head.status, &head.headers);
        if has_result(headers) {
            return Verdict::Result;
        }
        let stand = match stand {
            Some(Stand::PendingPerhaps) if self.is_declared() => Some(Stand::Pending),
            Some(Stand::PendingPerhaps) => None,
            // What a 202 tells of an end is that of something else: the job it answers for goes on.
            _ if status == StatusCode::ACCEPTED && !self.must_be_document() => None,
            stand => stand,
        };
        match (status, stand) {
            (_, Some(Stand::Succeeded)) => Verdict::Succeeded,
            (_, Some(Stand::Failed)) => Verdict::Failed,
            (_, Some(Stand::Canceled)) => Verdict::Canceled,
            (StatusCode::ACCEPTED, _) if !self.must_be_document() => {
                Verdict::Pending(Manner::Pending202)
            }
            (StatusCode::ACCEPTED, _) | (_, Some(_)) => Verdict::Pending(Manner::Document),
            (StatusCode::SEE_OTHER, None) if location(headers).is_some() => {
                Verdict::ResultElsewhere
            }
            _ => match moved(head) {
                Some(permanently) => Verdict::Moved(permanently),
                None if is_unavailable(head) => Verdict::Unavailable,
                None if status == StatusCode::NOT_MODIFIED || status.is_redirection() => {
                    Verdict::Unreadable
                }
                None if self.must_be_document() && !status.is_success() => Verdict::Unreadable,
                None if !self.is_trusted() && media_type(headers) != Some("application/http") => {
                    Verdict::NoMonitor
                }
                None => Verdict::Result,
            },
        }
    }

    /// Whether some answer, or the name alone, shows that this is a monitor.
    pub(super) fn is_trusted(self) -> bool {
        self.manner != Manner::Unknown || self.named != Named::Location || self.location_is_monitor
    }

    /// Whether a word that is no known status can be taken for one.
    fn is_declared(self) -> bool {
        self.must_be_document() || self.named == Named::Link
    }
}

/// What the answer to a question for the result means.
pub(super) fn verdict_on_result(head: &Parts) -> Verdict {
    if has_result(&head.headers) {
        return Verdict::Result;
    }
    match moved(head) {
        Some(permanently) => Verdict::Moved(permanently),
        None if head.status == StatusCode::ACCEPTED => Verdict::Pending(Manner::Unknown),
        None if head.status == StatusCode::SEE_OTHER && location(&head.headers).is_some() => {
            Verdict::ResultElsewhere
        }
        None if is_unavailable(head) => Verdict::Unavailable,
        None => Verdict::Result,
    }
}

/// The status of the result, where it is not that of the message: an OData service's is always 200
/// (OData 4.01 §8.3.1).
pub(super) fn async_result(headers: &HeaderMap) -> Option<StatusCode> {
    let text = headers.get(ASYNC_RESULT)?.to_str().ok()?;
    let status: StatusCode = text.trim().parse().ok()?;
    (200..600).contains(&status.as_u16()).then_some(status)
}

/// Whether a server has shown that it reads `Prefer`: only then is it asked to wait.
pub(super) fn reads_preferences(headers: &HeaderMap) -> bool {
    headers.contains_key(PREFERENCE_APPLIED)
        || headers
            .get_all(header::VARY)
            .into_iter()
            .flat_map(|line| split(line.as_bytes(), b','))
            .any(|name| name.eq_ignore_ascii_case(PREFER.as_str().as_bytes()))
}

/// `AsyncResult` says it: this response is the one that the original request was to have.
fn has_result(headers: &HeaderMap) -> bool {
    headers.contains_key(ASYNC_RESULT)
}

/// Whether this is a redirect to the same thing elsewhere, and whether for good.
fn moved(head: &Parts) -> Option<bool> {
    location(&head.headers)?;
    match head.status {
        StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT => Some(true),
        StatusCode::FOUND | StatusCode::TEMPORARY_REDIRECT => Some(false),
        _ => None,
    }
}

/// A status that says nothing about the job, only that asking was in vain.
fn is_unavailable(head: &Parts) -> bool {
    match head.status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => true,
        // A gateway in between says so in no such terms: a problem document without a hint to come
        // again is what the server has to say of a job that ended without a response.
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
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

    fn asked(named: Named, manner: Manner) -> Asked {
        Asked {
            named,
            manner,
            location_is_monitor: false,
        }
    }

    const LOCATION: &[(&str, &str)] = &[("location", "/x")];
    const RESULT: &[(&str, &str)] = &[("asyncresult", "503"), ("location", "/x")];
    const PROBLEM: &[(&str, &str)] = &[("content-type", "application/problem+json")];

    #[test]
    fn the_answers_of_each_kind_of_monitor_are_told_apart() {
        use Manner::{Document, Pending202, Unknown};
        use Named::{ContentLocation, Link, Location, OperationLocation};
        use Verdict::{
            Canceled, Failed, Moved, NoMonitor, Pending, Result, ResultElsewhere, Succeeded,
            Unavailable, Unreadable,
        };
        let none: &[(&str, &str)] = &[];
        for (named, manner, status, headers, stand, expected) in [
            // A document, whoever has it.
            (
                OperationLocation,
                Unknown,
                200,
                none,
                Some(Stand::Pending),
                Pending(Document),
            ),
            (
                OperationLocation,
                Unknown,
                200,
                none,
                Some(Stand::PendingPerhaps),
                Pending(Document),
            ),
            (
                OperationLocation,
                Document,
                200,
                none,
                Some(Stand::Succeeded),
                Succeeded,
            ),
            (
                OperationLocation,
                Document,
                200,
                none,
                Some(Stand::Failed),
                Failed,
            ),
            (
                OperationLocation,
                Document,
                200,
                none,
                Some(Stand::Canceled),
                Canceled,
            ),
            (
                Link,
                Unknown,
                200,
                none,
                Some(Stand::PendingPerhaps),
                Pending(Document),
            ),
            (
                Location,
                Unknown,
                200,
                none,
                Some(Stand::Pending),
                Pending(Document),
            ),
            (
                Location,
                Document,
                200,
                none,
                Some(Stand::PendingPerhaps),
                Pending(Document),
            ),
            (
                ContentLocation,
                Unknown,
                200,
                none,
                Some(Stand::Succeeded),
                Succeeded,
            ),
            // A 202 is pending, with the document's word where there must be one.
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
                Some(Stand::Succeeded),
                Succeeded,
            ),
            (Location, Unknown, 202, none, None, Pending(Pending202)),
            (
                Location,
                Unknown,
                202,
                none,
                Some(Stand::Succeeded),
                Pending(Pending202),
            ),
            (
                ContentLocation,
                Pending202,
                202,
                none,
                Some(Stand::Pending),
                Pending(Pending202),
            ),
            // The result, here or elsewhere.
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
                Some(Stand::PendingPerhaps),
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
            // Neither.
            (Location, Unknown, 307, LOCATION, None, Moved(false)),
            (Location, Unknown, 302, LOCATION, None, Moved(false)),
            (OperationLocation, Unknown, 308, LOCATION, None, Moved(true)),
            (OperationLocation, Unknown, 308, none, None, Unreadable),
            (Location, Unknown, 304, none, None, Unreadable),
            (OperationLocation, Document, 429, none, None, Unavailable),
            (Location, Pending202, 503, none, None, Unavailable),
            (Location, Pending202, 504, none, None, Unavailable),
            (Location, Pending202, 504, PROBLEM, None, Result),
            (OperationLocation, Document, 404, none, None, Unreadable),
            (OperationLocation, Unknown, 500, none, None, Unreadable),
            (Location, Document, 410, none, None, Unreadable),
            // A Location has to prove itself.
            (Location, Unknown, 200, none, None, NoMonitor),
            (
                Location,
                Unknown,
                200,
                none,
                Some(Stand::PendingPerhaps),
                NoMonitor,
            ),
            (Location, Unknown, 404, none, None, NoMonitor),
            (Location, Unknown, 500, none, None, NoMonitor),
        ] {
            let found = asked(named, manner).verdict(&head(status, headers), stand);
            let case = format!("{named:?} {manner:?} {status} {headers:?} {stand:?}");
            assert_eq!(found, expected, "{case}");
        }
    }

    #[test]
    fn a_location_that_is_to_be_trusted_need_not_prove_itself() {
        let asked = Asked {
            location_is_monitor: true,
            ..asked(Named::Location, Manner::Unknown)
        };
        for status in [200, 204, 404] {
            assert_eq!(asked.verdict(&head(status, &[]), None), Verdict::Result);
        }
    }

    #[test]
    fn a_result_is_final_unless_it_is_put_off_or_elsewhere() {
        for (status, headers, expected) in [
            (200, &[][..], Verdict::Result),
            (404, &[], Verdict::Result),
            (304, &[], Verdict::Result),
            (303, &[], Verdict::Result),
            (500, PROBLEM, Verdict::Result),
            (504, PROBLEM, Verdict::Result),
            (503, RESULT, Verdict::Result),
            (303, RESULT, Verdict::Result),
            (202, RESULT, Verdict::Result),
            (202, &[], Verdict::Pending(Manner::Unknown)),
            (503, PROBLEM, Verdict::Unavailable),
            (429, &[], Verdict::Unavailable),
            (502, &[], Verdict::Unavailable),
            (303, LOCATION, Verdict::ResultElsewhere),
            (302, LOCATION, Verdict::Moved(false)),
            (301, LOCATION, Verdict::Moved(true)),
        ] {
            let head = head(status, headers);
            assert_eq!(verdict_on_result(&head), expected, "{status} {headers:?}");
        }
    }

    #[test]
    fn only_a_server_that_shows_it_reads_preferences() {
        for (headers, expected) in [
            (&[("vary", "Prefer")][..], true),
            (&[("vary", "accept"), ("vary", "origin, PREFER")], true),
            (&[("preference-applied", "respond-async")], true),
            (&[("vary", "*")], false),
            (&[("vary", "prefers")], false),
            (&[], false),
        ] {
            let head = head(202, headers);
            assert_eq!(reads_preferences(&head.headers), expected, "{headers:?}");
        }
    }
}
