//! Writes the status document: a job as JSON.

use serde::Serialize;

use super::{
    id::IdText,
    snapshot::{ResponseHead, Snapshot},
    timestamp,
};

/// The bytes that hold most documents of ended jobs.
const DOCUMENT_CAPACITY: usize = 640;

/// Returns the status document of a job. `write_link` writes the URI of its monitor.
///
/// It depends only on the job's revision and that link. A member without a value is omitted, not
/// null.
///
/// Documents take most of a monitor's time. A derived `Serialize` takes twice as long, because it
/// checks every name and every text for characters to escape.
#[inline]
pub(crate) fn document(
    job: &Snapshot,
    id: &IdText,
    write_link: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    let mut json = Vec::with_capacity(DOCUMENT_CAPACITY);
    json.extend_from_slice(b"{\"id\":\"");
    json.extend_from_slice(id);
    json.extend_from_slice(b"\",\"self\":\"");
    let link_start = json.len();
    write_link(&mut json);
    let link = link_start..json.len();
    json.extend_from_slice(b"\",\"status\":\"");
    json.extend_from_slice(job.status.as_str().as_bytes());
    json.extend_from_slice(b"\",\"createdAt\":\"");
    timestamp::write(&mut json, job.created_at);
    if let Some(at) = job.started_at {
        json.extend_from_slice(b"\",\"startedAt\":\"");
        timestamp::write(&mut json, at);
    }
    if let Some(at) = job.estimated_finish_at {
        json.extend_from_slice(b"\",\"estimatedFinishAt\":\"");
        timestamp::write(&mut json, at);
    }
    if let Some(at) = job.finished_at {
        json.extend_from_slice(b"\",\"finishedAt\":\"");
        timestamp::write(&mut json, at);
    }
    if let Some(at) = job.expires_at {
        json.extend_from_slice(b"\",\"expiresAt\":\"");
        timestamp::write(&mut json, at);
    }
    json.push(b'"');
    if let Some(fraction) = job.progress.fraction {
        json.extend_from_slice(b",\"percentComplete\":");
        write_value(&mut json, &percent(fraction));
    }
    if let Some(message) = &job.progress.message {
        json.extend_from_slice(b",\"message\":");
        write_value(&mut json, &**message);
    }
    if let Some(head) = &job.response {
        json.extend_from_slice(b",\"resourceLocation\":\"");
        json.extend_from_within(link.clone());
        json.extend_from_slice(b"/result\",\"response\":{\"status\":");
        write_response(&mut json, head);
    }
    if let Some(partial) = &job.partial {
        json.extend_from_slice(b",\"partial\":{\"status\":");
        write_value(&mut json, &partial.status.as_u16());
        json.extend_from_slice(b",\"contentLength\":");
        write_value(&mut json, &partial.content_length);
        json.push(b'}');
    }
    if let Some(failure) = &job.error {
        json.extend_from_slice(b",\"error\":{\"code\":\"");
        json.extend_from_slice(failure.code.as_str().as_bytes());
        json.extend_from_slice(b"\",\"message\":");
        write_value(&mut json, &failure.message());
        json.push(b'}');
    }
    if job.callbacks.is_some() {
        json.extend_from_slice(b",\"callbacks\":\"");
        json.extend_from_within(link);
        json.extend_from_slice(b"/callbacks\"");
    }
    json.push(b'}');
    json
}

fn write_response(json: &mut Vec<u8>, head: &ResponseHead) {
    write_value(json, &head.status.as_u16());
    let content_type = head.content_type.as_ref();
    if let Some(content_type) = content_type.and_then(|value| value.to_str().ok()) {
        json.extend_from_slice(b",\"contentType\":");
        write_value(json, content_type);
    }
    json.extend_from_slice(b",\"contentLength\":");
    write_value(json, &head.content_length);
    if let Some(retry_after) = &head.retry_after {
        json.extend_from_slice(b",\"retryAfter\":");
        write_value(json, &**retry_after);
    }
    json.push(b'}');
}

/// Writes a number, or a text that may need escapes.
fn write_value(json: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(json, value).expect("a text or a number");
}

/// Returns whole percents, rounded down: only complete work is at 100 %.
pub(crate) fn percent(fraction: f64) -> u8 {
    // As a binary fraction, 0.29 is slightly smaller. The summand makes it 29 and not 28.
    (fraction * 100.0 + 1e-9).floor().clamp(0.0, 100.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_rounded_down() {
        for (fraction, shown) in [(0.0, 0), (0.29, 29), (0.999, 99), (1.0, 100)] {
            assert_eq!(percent(fraction), shown);
        }
    }
}
