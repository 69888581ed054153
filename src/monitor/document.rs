use std::{borrow::Cow, time::SystemTime};

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use serde::Serialize;

use crate::{
    job::{ErrorCode, Failure, ResponseHead, Snapshot},
    jobs::Config,
    links::At,
};

const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// Room for the document of a job that has ended, with links of some length.
const USUAL_BYTES: usize = 512;

/// The status document: what a client is told of a job, as JSON.
///
/// It is a function of the job's revision alone. What is absent is absent, not null.
pub(super) fn document(job: &Snapshot, config: &Config) -> Vec<u8> {
    document_at(At::Document, job, config)
}

/// The same with links to be read elsewhere.
pub(super) fn document_at(at: At<'_>, job: &Snapshot, config: &Config) -> Vec<u8> {
    let link = config.link(at, job.id);
    let mut document = Object::open(Vec::with_capacity(USUAL_BYTES));
    document.own("id", &job.id.encode());
    document.value("self", &*link);
    document.own("status", job.status.as_str().as_bytes());
    document.time("createdAt", job.created_at);
    if let Some(at) = job.started_at {
        document.time("startedAt", at);
    }
    if let Some(at) = job.estimated_finish_at {
        document.time("estimatedFinishAt", at);
    }
    if let Some(at) = job.finished_at {
        document.time("finishedAt", at);
    }
    if let Some(at) = job.expires_at {
        document.time("expiresAt", at);
    }
    if let Some(fraction) = job.progress.fraction {
        document.value("percentComplete", &percent(fraction));
    }
    if let Some(message) = &job.progress.message {
        document.value("message", &**message);
    }
    if let Some(head) = &job.response {
        document.value("resourceLocation", &[&*link, "/result"].concat());
        document.object("response", |object| response(object, head));
    }
    if let Some(failure) = &job.error {
        document.object("error", |object| error(object, failure));
    }
    document.close()
}

fn response(object: &mut Object, head: &ResponseHead) {
    object.value("status", &head.status.as_u16());
    let content_type = head.content_type.as_ref();
    if let Some(content_type) = content_type.and_then(|value| value.to_str().ok()) {
        object.value("contentType", content_type);
    }
    object.value("contentLength", &head.content_length);
}

fn error(object: &mut Object, failure: &Failure) {
    object.own("code", failure.code.as_str().as_bytes());
    object.value("message", &failure.message());
}

impl Failure {
    /// What people are told.
    pub(super) fn message(&self) -> Cow<'static, str> {
        match (self.code, self.status) {
            (ErrorCode::HttpError, Some(status)) => {
                Cow::Owned(format!("The service answered {status}."))
            }
            _ => Cow::Borrowed(self.code.message()),
        }
    }
}

/// Whole percents, rounded down: 100 is said only of what is all done.
pub(super) fn percent(fraction: f64) -> u8 {
    // So that 0.29 is 29 and not 28: it is a little less than that in binary.
    (fraction * 100.0 + 1e-9).floor().clamp(0.0, 100.0) as u8
}

/// A JSON object, written member by member.
///
/// To write documents is most of what a monitor does. A derived `Serialize` takes twice as long: it
/// looks for what is to be escaped in every name and in every text, also where nothing can be.
struct Object {
    json: Vec<u8>,
}

impl Object {
    fn open(mut json: Vec<u8>) -> Self {
        json.push(b'{');
        Self { json }
    }

    fn close(mut self) -> Vec<u8> {
        self.json.push(b'}');
        self.json
    }

    fn name(&mut self, name: &'static str) {
        if self.json.last() != Some(&b'{') {
            self.json.push(b',');
        }
        self.json.push(b'"');
        self.json.extend_from_slice(name.as_bytes());
        self.json.extend_from_slice(b"\":");
    }

    /// A text of this crate's own making, in which nothing is to be escaped.
    fn own(&mut self, name: &'static str, text: &[u8]) {
        self.name(name);
        self.json.push(b'"');
        self.json.extend_from_slice(text);
        self.json.push(b'"');
    }

    fn value(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) {
        self.name(name);
        serde_json::to_writer(&mut self.json, value).expect("a text or a number");
    }

    /// A time as in RFC 3339, in UTC and to the millisecond.
    fn time(&mut self, name: &'static str, at: SystemTime) {
        // The last time there is stands for what is beyond it: retained "for ever".
        let time = Timestamp::try_from(at).unwrap_or(Timestamp::MAX);
        self.name(name);
        self.json.push(b'"');
        let printed = PRINTER.print_timestamp(&time, &mut self.json);
        printed.expect("a buffer takes everything");
        self.json.push(b'"');
    }

    fn object(&mut self, name: &'static str, members: impl FnOnce(&mut Self)) {
        self.name(name);
        self.json.push(b'{');
        members(self);
        self.json.push(b'}');
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
        let time = |at| {
            let mut object = Object::open(Vec::new());
            object.time("at", at);
            String::from_utf8(object.close()).expect("JSON")
        };
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(time(epoch), r#"{"at":"1970-01-01T00:00:00.000Z"}"#);
        let at = epoch + Duration::from_millis(1_795_000_000_120);
        assert_eq!(time(at), r#"{"at":"2026-11-18T11:06:40.120Z"}"#);
        let far = epoch + Duration::from_secs(u64::from(u32::MAX) * 1_000);
        assert!(time(far).starts_with(r#"{"at":"9999-"#));
    }
}
