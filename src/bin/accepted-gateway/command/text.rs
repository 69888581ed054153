//! Jobs as text for people: a table, and the fields of one job.

use std::fmt::Write;

use tower_accepted::Snapshot;

use super::document::{percent, seconds};

/// The first line of the table.
pub(super) const TABLE_HEAD: &str = "\
ID                      STATUS     CREATED               FINISHED              OUTCOME           \
REQUEST\n";

/// Returns the line of a job in the table.
pub(super) fn table_row(job: &Snapshot) -> String {
    let finished = job.finished_at.map_or_else(absent, seconds);
    let line = format!(
        "{:22}  {:9}  {:20}  {finished:20}  {:16}  {}",
        job.id,
        job.status,
        seconds(job.created_at),
        outcome(job),
        request(job),
    );
    line + "\n"
}

/// Returns the fields of a job, one a line.
pub(super) fn fields(job: &Snapshot) -> String {
    let response = job.response.as_ref().map(|head| {
        let content_type = head.content_type.as_ref();
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let content_type = content_type.map(|kind| format!(", {kind}"));
        format!(
            "{}{}, {} bytes",
            head.status,
            content_type.unwrap_or_default(),
            head.content_length
        )
    });
    let error = job.error.as_ref();
    let error = error.map(|failure| format!("{}: {}", failure.code, failure.message()));
    let progress = job.progress.fraction;
    let mut text = String::new();
    for (name, value) in [
        ("id", Some(job.id.to_string())),
        ("status", Some(job.status.to_string())),
        ("request", Some(request(job))),
        ("title", job.title.as_deref().map(printable)),
        ("created", Some(seconds(job.created_at))),
        ("started", job.started_at.map(seconds)),
        ("expected end", job.estimated_finish_at.map(seconds)),
        ("finished", job.finished_at.map(seconds)),
        ("expires", job.expires_at.map(seconds)),
        ("attempts", Some(job.attempt.to_string())),
        ("owner", job.owner.map(|owner| owner.to_string())),
        (
            "progress",
            progress.map(|done| format!("{} %", percent(done))),
        ),
        ("message", job.progress.message.as_deref().map(printable)),
        ("response", response.as_deref().map(printable)),
        ("error", error),
    ] {
        if let Some(value) = value {
            // A string takes any text.
            let _ = writeln!(text, "{name:12}  {value}");
        }
    }
    text
}

/// Returns the status of the response, the reason of a failure, or the progress.
fn outcome(job: &Snapshot) -> String {
    if let Some(head) = &job.response {
        return head.status.as_u16().to_string();
    }
    if let Some(failure) = &job.error {
        return failure.code.to_string();
    }
    let progress = job.progress.fraction;
    progress.map_or_else(absent, |done| format!("{} %", percent(done)))
}

/// Returns the kind of the request: its method and path, without ids.
fn request(job: &Snapshot) -> String {
    let kind = job.kind.as_ref();
    kind.map_or_else(absent, |kind| printable(kind.as_str()))
}

pub(super) fn absent() -> String {
    "-".to_owned()
}

/// Replaces the characters that control a terminal: clients and services send these texts.
pub(super) fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{FFFD}")
}
