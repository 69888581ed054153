use http::{HeaderMap, header};
use serde_json::{Map, Value};

/// A status document: what a monitor tells of a job, as JSON.
///
/// It is read as Azure's guidelines have it, which this crate's own monitor follows: the members are
/// those named here, and any others that a server adds.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusDocument {
    members: Map<String, Value>,
}

/// Where a job stands, as its document has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    Pending,
    /// Pending in a word of the server's own. Only where a resource is known to be a monitor can it
    /// be told from any other resource with a `status`.
    PendingPerhaps,
    Succeeded,
    Failed,
    Canceled,
}

impl StatusDocument {
    /// `None` for what is no JSON object.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        let members = serde_json::from_slice(json).ok()?;
        Some(Self { members })
    }

    /// `status`, in the server's spelling: `succeeded`, `failed` and `canceled` are ends, in any
    /// case; every other word is of a job that has not ended.
    pub fn status(&self) -> Option<&str> {
        self.text("status")
    }

    /// `percentComplete`, from 0 to 100.
    pub fn percent_complete(&self) -> Option<f64> {
        let percent = self.get("percentComplete")?.as_f64()?;
        Some(percent.clamp(0.0, 100.0))
    }

    /// `message`: what the job has to say, for people.
    pub fn message(&self) -> Option<&str> {
        self.text("message")
    }

    /// `resourceLocation`: where the result is, once there is one.
    pub fn resource_location(&self) -> Option<&str> {
        self.text("resourceLocation")
    }

    /// `error.code` of a job that failed or was canceled, for programs.
    pub fn error_code(&self) -> Option<&str> {
        self.get("error")?.get("code")?.as_str()
    }

    /// `error.message` of a job that failed or was canceled, for people.
    pub fn error_message(&self) -> Option<&str> {
        self.get("error")?.get("message")?.as_str()
    }

    /// Any member.
    pub fn get(&self, member: &str) -> Option<&Value> {
        self.members.get(member)
    }

    /// All members.
    pub fn members(&self) -> &Map<String, Value> {
        &self.members
    }

    fn text(&self, member: &str) -> Option<&str> {
        self.get(member)?.as_str()
    }

    /// `None` where this is not a job's document.
    pub(super) fn stand(&self) -> Option<Stand> {
        // A FHIR resource has a `status` too, and is a result.
        if self.members.contains_key("resourceType") {
            return None;
        }
        let status = self.status()?.to_ascii_lowercase();
        Some(match status.as_str() {
            "succeeded" => Stand::Succeeded,
            "failed" => Stand::Failed,
            "canceled" | "cancelled" => Stand::Canceled,
            "accepted" | "canceling" | "cancelling" | "inprogress" | "notstarted" | "pending"
            | "processing" | "queued" | "running" | "started" => Stand::Pending,
            _ => Stand::PendingPerhaps,
        })
    }
}

/// Whether a response has content of JSON's kind.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|media_type| {
        media_type.eq_ignore_ascii_case("application/json")
            || media_type
                .rsplit_once('+')
                .is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case("json"))
    })
}

/// The media type of a response's content, without its parameters.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    text.split(';').next().map(str::trim_ascii)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn stand(json: &str) -> Option<Stand> {
        StatusDocument::parse(json.as_bytes())?.stand()
    }

    #[test]
    fn the_status_tells_where_a_job_stands_in_any_case() {
        for (json, expected) in [
            (r#"{"status":"queued"}"#, Some(Stand::Pending)),
            (r#"{"status":"NotStarted"}"#, Some(Stand::Pending)),
            (r#"{"status":"Running"}"#, Some(Stand::Pending)),
            (r#"{"status":"InProgress"}"#, Some(Stand::Pending)),
            (
                r#"{"status":"PreparingVMDisk"}"#,
                Some(Stand::PendingPerhaps),
            ),
            (r#"{"status":"Succeeded"}"#, Some(Stand::Succeeded)),
            (r#"{"status":"FAILED"}"#, Some(Stand::Failed)),
            (r#"{"status":"Canceled"}"#, Some(Stand::Canceled)),
            (r#"{"status":"cancelled"}"#, Some(Stand::Canceled)),
            (r#"{"resourceType":"Task","status":"failed"}"#, None),
            (r#"{"status":200}"#, None),
            (r#"{"state":"running"}"#, None),
            (r#"["status"]"#, None),
            ("{", None),
            ("", None),
        ] {
            assert_eq!(stand(json), expected, "{json}");
        }
    }

    #[test]
    fn members_of_the_wrong_type_are_as_if_absent() {
        let document = StatusDocument::parse(
            br#"{"status":null,"percentComplete":"40","message":[],"resourceLocation":1,"error":"x"}"#,
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
    fn json_comes_under_many_types() {
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
