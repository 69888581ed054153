use std::time::SystemTime;

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use serde::{Serialize, Serializer};

use crate::{
    job::{ErrorCode, Failure, ResponseHead, Snapshot, Status},
    jobs::Config,
    links::At,
};

const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// The status document: what a client is told of a job, as JSON.
///
/// It is a function of the job's revision alone. What is absent is absent, not null.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document<'a> {
    id: &'a str,
    #[serde(rename = "self")]
    this: &'a str,
    status: Status,
    created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent_complete: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_location: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Response<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    content_length: u64,
}

#[derive(Serialize)]
struct Error {
    code: &'static str,
    message: String,
}

impl Document<'_> {
    /// The document of `job`, with links as `config` wants them.
    pub(super) fn json(job: &Snapshot, config: &Config) -> Vec<u8> {
        let id = job.id.encode();
        let id = str::from_utf8(&id).unwrap_or_default();
        let this = format!("{}{id}", config.link_prefix(At::Document));
        let document = Document {
            id,
            status: job.status,
            created_at: Time(job.created_at),
            started_at: job.started_at.map(Time),
            finished_at: job.finished_at.map(Time),
            expires_at: job.expires_at.map(Time),
            percent_complete: job.progress.fraction.map(percent),
            message: job.progress.message.as_deref(),
            resource_location: job.response.as_ref().map(|_| format!("{this}/result")),
            response: job.response.as_ref().map(Response::of),
            error: job.error.as_ref().map(Error::of),
            this: &this,
        };
        serde_json::to_vec(&document).expect("texts and numbers")
    }
}

impl<'a> Response<'a> {
    fn of(head: &'a ResponseHead) -> Self {
        Self {
            status: head.status.as_u16(),
            content_type: head
                .content_type
                .as_ref()
                .and_then(|value| value.to_str().ok()),
            content_length: head.content_length,
        }
    }
}

impl Error {
    fn of(failure: &Failure) -> Self {
        Self {
            code: failure.code.as_str(),
            message: failure.message(),
        }
    }
}

impl Failure {
    /// What people are told.
    pub(super) fn message(&self) -> String {
        match (self.code, self.status) {
            (ErrorCode::HttpError, Some(status)) => format!("The service answered {status}."),
            _ => self.code.message().to_owned(),
        }
    }
}

/// Whole percents, rounded down: 100 is said only of what is all done.
pub(super) fn percent(fraction: f64) -> u8 {
    // So that 0.29 is 29 and not 28: it is a little less than that in binary.
    (fraction * 100.0 + 1e-9).floor().clamp(0.0, 100.0) as u8
}

/// A time as in RFC 3339, in UTC and to the millisecond.
struct Time(SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The last time there is stands for what is beyond it: retained "for ever".
        let time = Timestamp::try_from(self.0).unwrap_or(Timestamp::MAX);
        serializer.serialize_str(&PRINTER.timestamp_to_string(&time))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn percents_are_rounded_down() {
        for (fraction, shown) in [(0.0, 0), (0.29, 29), (0.999, 99), (1.0, 100)] {
            assert_eq!(percent(fraction), shown);
        }
    }

    #[test]
    fn times_are_rfc_3339_in_utc_to_the_millisecond() {
        let time = |at| serde_json::to_string(&Time(at)).expect("a text");
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(time(epoch), r#""1970-01-01T00:00:00.000Z""#);
        let at = epoch + Duration::from_millis(1_795_000_000_120);
        assert_eq!(time(at), r#""2026-11-18T11:06:40.120Z""#);
        let far = epoch + Duration::from_secs(u64::from(u32::MAX) * 1_000);
        assert!(time(far).starts_with(r#""9999-"#));
    }
}
