//! A webhook whose signature was verified.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::event_type::EventType;

/// A webhook whose signature was verified: an event of a job.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WebhookEvent {
    /// The id of the event, from `webhook-id`.
    ///
    /// A delivery may come again with the same id. Remember the ids of handled events, to handle
    /// each event once.
    pub id: String,
    /// The name of the event, such as `job.succeeded`. [`event_type`](Self::event_type) has it as
    /// an enum.
    pub type_name: String,
    /// The time of the event, as in RFC 3339. Each attempt has the same time.
    pub timestamp: String,
    /// The status document of the job at that time.
    pub data: Map<String, Value>,
}

/// The body of a webhook. Other members are ignored.
#[derive(Deserialize)]
struct WebhookBody {
    #[serde(rename = "type")]
    type_name: String,
    timestamp: String,
    data: Map<String, Value>,
}

impl WebhookEvent {
    pub(super) fn parse(id: &str, body: &[u8]) -> Result<Self, serde_json::Error> {
        let WebhookBody {
            type_name,
            timestamp,
            data,
        } = serde_json::from_slice(body)?;
        Ok(Self {
            id: id.to_owned(),
            type_name,
            timestamp,
            data,
        })
    }

    /// Returns the type of the event, or `None` if this version of the crate does not know it.
    pub fn event_type(&self) -> Option<EventType> {
        self.type_name.parse().ok()
    }

    /// Returns `id` of the status document: the id of the job.
    pub fn job_id(&self) -> Option<&str> {
        self.text("id")
    }

    /// Returns `status`: `queued`, `running`, `succeeded`, `failed` or `canceled`.
    pub fn status(&self) -> Option<&str> {
        self.text("status")
    }

    /// Returns `percentComplete`, from 0 to 100.
    pub fn percent_complete(&self) -> Option<u8> {
        let percent = self.data.get("percentComplete")?.as_u64()?;
        u8::try_from(percent).ok()
    }

    /// Returns `message`: the job's progress as text.
    pub fn message(&self) -> Option<&str> {
        self.text("message")
    }

    /// Returns `resourceLocation`: a reference to the job's result, if it has one.
    ///
    /// It is relative to the sender if the sender has no public base for its links.
    pub fn resource_location(&self) -> Option<&str> {
        self.text("resourceLocation")
    }

    /// Returns `response.status`: the status of the job's result, if it has one.
    pub fn response_status(&self) -> Option<StatusCode> {
        let status = self.data.get("response")?.get("status")?.as_u64()?;
        StatusCode::from_u16(status.try_into().ok()?).ok()
    }

    /// Returns `error.code`: why the job failed or was canceled.
    pub fn error_code(&self) -> Option<&str> {
        self.data.get("error")?.get("code")?.as_str()
    }

    /// Returns `error.message`: the same in a sentence.
    pub fn error_message(&self) -> Option<&str> {
        self.data.get("error")?.get("message")?.as_str()
    }

    fn text(&self, member: &str) -> Option<&str> {
        self.data.get(member)?.as_str()
    }
}
