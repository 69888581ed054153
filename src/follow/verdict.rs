//! Compares a response with the document of its job.

use super::{StatusDocument, document::DocumentState};

/// The error code of a job whose response was too large to keep.
const RESULT_TOO_LARGE: &str = "result_too_large";

/// The part of a response that the client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    /// The number of its bytes.
    pub(super) bytes: u64,
    /// Set if it ended without an error.
    pub(super) is_clean: bool,
    /// Set if the monitor has sent the last bytes. Otherwise it is the response to the original
    /// request, and the monitor may keep less.
    pub(super) from_monitor: bool,
}

/// The continuation of a response, by the document of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The client has the whole response.
    Complete,
    /// The monitor has more, or will have.
    Resume,
    /// The job failed, and the client has all of its response.
    Failed,
    /// The job was canceled, and the client has all of its response.
    Canceled,
    /// The client has more bytes than the job has produced.
    Altered,
}

/// Compares the part of a response that the client has with the document of its job.
pub(super) fn compare(document: &StatusDocument, received: Received) -> Verdict {
    let end = match document.state() {
        Some(DocumentState::Succeeded) => None,
        Some(DocumentState::Failed) => Some(Verdict::Failed),
        Some(DocumentState::Canceled) => Some(Verdict::Canceled),
        Some(DocumentState::Pending | DocumentState::MaybePending) | None => {
            return Verdict::Resume;
        }
    };
    let (bytes, is_clean) = (received.bytes, received.is_clean);
    // A break at the very end may have taken the trailers along, so the end is read again.
    let confirmed = if is_clean {
        Verdict::Complete
    } else {
        Verdict::Resume
    };
    // The server goes on to send what it does not keep.
    let may_exceed =
        is_clean && !received.from_monitor && document.error_code() == Some(RESULT_TOO_LARGE);
    match (
        length(document, "response"),
        length(document, "partial"),
        end,
    ) {
        (Some(whole), _, _) if whole == bytes => confirmed,
        (Some(more), _, _) | (None, Some(more), _) if more > bytes => Verdict::Resume,
        (None, Some(part), Some(end)) if part == bytes => end,
        (None, _, Some(_)) if may_exceed => Verdict::Complete,
        (None, None, Some(end)) => end,
        (None, Some(_), Some(end)) if !received.from_monitor => end,
        (Some(_), _, _) | (None, Some(_), _) => Verdict::Altered,
        // This document has no length.
        (None, None, None) => confirmed,
    }
}

/// Returns the `contentLength` of a member.
fn length(document: &StatusDocument, member: &str) -> Option<u64> {
    document.get(member)?.get("contentLength")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_decides_how_a_response_goes_on() {
        use Verdict::{Altered, Canceled, Complete, Failed, Resume};
        let whole = r#"{"status":"succeeded","response":{"contentLength":7}}"#;
        let http_error = r#"{"status":"failed","response":{"contentLength":7}}"#;
        let part = r#"{"status":"failed","partial":{"contentLength":7}}"#;
        let canceled = r#"{"status":"canceled","partial":{"contentLength":7}}"#;
        let too_large = r#"{"status":"failed","partial":{"contentLength":7},
            "error":{"code":"result_too_large"}}"#;
        let nothing_kept = r#"{"status":"failed","error":{"code":"result_too_large"}}"#;
        // With these bytes: after a clean end, or a break.
        for (json, bytes, clean, broken) in [
            (r#"{"status":"running"}"#, 7, Resume, Resume),
            (r#"{"status":"succeeded"}"#, 7, Complete, Resume),
            (r#"{"status":"failed"}"#, 7, Failed, Failed),
            (r#"{"status":"canceled"}"#, 0, Canceled, Canceled),
            (whole, 6, Resume, Resume),
            (whole, 7, Complete, Resume),
            (whole, 8, Altered, Altered),
            (http_error, 7, Complete, Resume),
            (part, 6, Resume, Resume),
            (part, 7, Failed, Failed),
            (part, 8, Altered, Altered),
            (canceled, 7, Canceled, Canceled),
            (too_large, 7, Failed, Failed),
            (too_large, 8, Altered, Altered),
            (nothing_kept, 8, Failed, Failed),
        ] {
            let document = StatusDocument::parse(json.as_bytes()).expect("a document");
            for (is_clean, expected) in [(true, clean), (false, broken)] {
                let received = Received {
                    bytes,
                    is_clean,
                    from_monitor: true,
                };
                assert_eq!(
                    compare(&document, received),
                    expected,
                    "{json} {received:?}"
                );
            }
        }
        // The client of the original request may have more than the monitor keeps.
        for (json, bytes, clean, broken) in [
            (part, 8, Failed, Failed),
            (too_large, 7, Failed, Failed),
            (too_large, 8, Complete, Failed),
            (nothing_kept, 8, Complete, Failed),
            (whole, 8, Altered, Altered),
        ] {
            let document = StatusDocument::parse(json.as_bytes()).expect("a document");
            for (is_clean, expected) in [(true, clean), (false, broken)] {
                let received = Received {
                    bytes,
                    is_clean,
                    from_monitor: false,
                };
                assert_eq!(
                    compare(&document, received),
                    expected,
                    "{json} {received:?}"
                );
            }
        }
    }
}
