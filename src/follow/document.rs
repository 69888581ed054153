//! The status document that a monitor returns.

use http::{HeaderMap, header};
use serde_json::{Map, Value};

/// A status document: a monitor's JSON object with the state of a job.
///
/// The members follow Azure's guidelines, as this crate's own monitor does. Servers may add others.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusDocument {
    members: Map<String, Value>,
}

/// The state of a job in its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DocumentState {
    Pending,
    /// The `status` is not a known word. It means pending if the resource is known to be a monitor.
    MaybePending,
    Succeeded,
    Failed,
    Canceled,
}

impl StatusDocument {
    /// Returns `None` if the text is not a JSON object.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        let members = serde_json::from_slice(json).ok()?;
        Some(Self { members })
    }

    /// Returns `status` in the server's spelling.
    ///
    /// `succeeded`, `failed` and `canceled` are final, in any case. Any other word means that the
    /// job has not ended.
    pub fn status(&self) -> Option<&str> {
        self.text("status")
    }

    /// Returns `percentComplete`, from 0 to 100.
    pub fn percent_complete(&self) -> Option<f64> {
        let percent = self.get("percentComplete")?.as_f64()?;
        Some(percent.clamp(0.0, 100.0))
    }

    /// Returns `message`, the job's progress as text.
    pub fn message(&self) -> Option<&str> {
        self.text("message")
    }

    /// Returns `resourceLocation`, a reference to the result. A job without a result has none.
    pub fn resource_location(&self) -> Option<&str> {
        self.text("resourceLocation")
    }

    /// Returns `error.code`: a machine-readable reason why the job failed or was canceled.
    pub fn error_code(&self) -> Option<&str> {
        self.get("error")?.get("code")?.as_str()
    }

    /// Returns `error.message`: a human-readable reason why the job failed or was canceled.
    pub fn error_message(&self) -> Option<&str> {
        self.get("error")?.get("message")?.as_str()
    }

    /// Returns the member of this name.
    pub fn get(&self, member: &str) -> Option<&Value> {
        self.members.get(member)
    }

    /// Returns all members.
    pub fn members(&self) -> &Map<String, Value> {
        &self.members
    }

    fn text(&self, member: &str) -> Option<&str> {
        self.get(member)?.as_str()
    }

    /// Returns the state of the job, or `None` if this is not the document of a job.
    pub(super) fn state(&self) -> Option<DocumentState> {
        // FHIR resources have a `status` too, and are results.
        if self.members.contains_key("resourceType") {
            return None;
        }
        let status = self.status()?.to_ascii_lowercase();
        Some(match status.as_str() {
            "succeeded" => DocumentState::Succeeded,
            "failed" => DocumentState::Failed,
            "canceled" | "cancelled" => DocumentState::Canceled,
            "accepted" | "canceling" | "cancelling" | "inprogress" | "notstarted" | "pending"
            | "processing" | "queued" | "running" | "started" => DocumentState::Pending,
            _ => DocumentState::MaybePending,
        })
    }
}

/// Returns `true` if the content is JSON, by its media type.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|media_type| {
        media_type.eq_ignore_ascii_case("application/json")
            || media_type
                .rsplit_once('+')
                .is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case("json"))
    })
}

/// Returns the media type of the content, without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    text.split(';').next().map(str::trim_ascii)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn state(json: &str) -> Option<DocumentState> {
        StatusDocument::parse(json.as_bytes())?.state()
    }

    #[test]
    fn status_is_read_in_any_case() {
        for (json, expected) in [
            (r#"{"status":"queued"}"#, Some(DocumentState::Pending)),
            (r#"{"status":"NotStarted"}"#, Some(DocumentState::Pending)),
            (r#"{"status":"Running"}"#, Some(DocumentState::Pending)),
            (r#"{"status":"InProgress"}"#, Some(DocumentState::Pending)),
            (
                r#"{"status":"PreparingVMDisk"}"#,
                Some(DocumentState::MaybePending),
            ),
            (r#"{"status":"Succeeded"}"#, Some(DocumentState::Succeeded)),
            (r#"{"status":"FAILED"}"#, Some(DocumentState::Failed)),
            (r#"{"status":"Canceled"}"#, Some(DocumentState::Canceled)),
            (r#"{"status":"cancelled"}"#, Some(DocumentState::Canceled)),
            (r#"{"resourceType":"Task","status":"failed"}"#, None),
            (r#"{"status":200}"#, None),
            (r#"{"state":"running"}"#, None),
            (r#"["status"]"#, None),
            ("{", None),
            ("", None),
        ] {
            assert_eq!(state(json), expected, "{json}");
        }
    }

    #[test]
    fn members_of_the_wrong_type_are_ignored() {
        let document = StatusDocument::parse(
            br#"{
                "status": null,
                "percentComplete": "40",
                "message": [],
                "resourceLocation": 1,
                "error": "x"
            }"#,
        )
        .expect("an object");
        assert_eq!(document.status(), None);
        assert_eq!(document.percent_complete(), None);
        assert_eq!(document.message(), None);
        assert_eq!(document.resource_location(), None);
        assert_eq!(document.error_code(), None);
        assert_eq!(document.members().len(), 5);
    }

    #[test]
    fn json_is_recognized_by_its_media_type() {
        for (value, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/fhir+json", true),
            ("application/problem+json;x=y", true),
            ("application/jsonlines", false),
            ("text/html", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(is_json(&headers), expected, "{value}");
        }
    }
}
