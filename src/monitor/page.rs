//! The page: a job as people see it in a browser.

use std::{borrow::Cow, sync::LazyLock, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, Response, header};
use sha2::{Digest, Sha256};

use super::{
    document::percent,
    status::{NO_STORE, VARY},
    timestamp,
};
use crate::{
    job::{Snapshot, Status},
    registry::Registry,
    store::ResultBody,
};

/// One file, which loads no other.
const TEMPLATE: &str = include_str!("page.html");

/// The longest that a page without script stays as it is, in seconds: somebody is looking at it.
const LONGEST_REFRESH: u64 = 5;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");

/// The page's style and script run because they hash to this, and nothing else runs: nothing that a
/// message could smuggle in.
static CONTENT_SECURITY_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        hash_of("style"),
        hash_of("script"),
    );
    HeaderValue::try_from(policy).expect("a policy of ASCII")
});

/// The page of `job` as it is now, and its `ETag`.
pub(super) fn page<St>(job: &Snapshot, registry: &Registry<St>) -> (Response<ResultBody>, String) {
    let elapsed = Duration::from_secs(elapsed(job).as_secs());
    let retry_after = job.retry_after(&registry.estimates);
    let html = View::new(job, elapsed, retry_after).html();
    let mut response = Response::new(ResultBody::new(html.into(), None));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HTML);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::VARY, VARY);
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        CONTENT_SECURITY_POLICY.clone(),
    );
    for (name, value) in [
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // The page of an unfinished job tells its age, so it is another one a second later.
    let etag = format!("\"page-{}-{}\"", job.revision, elapsed.as_secs());
    (response, etag)
}

/// How long the job has taken, or took.
fn elapsed(job: &Snapshot) -> Duration {
    match job.finished_at {
        Some(finished) => finished.duration_since(job.created_at).unwrap_or_default(),
        None => job.age,
    }
}

/// What the template shows.
struct View<'a> {
    job: &'a Snapshot,
    elapsed: Duration,
    /// Until it may be done, where that is told and has not passed.
    left: Option<Duration>,
    /// After how many seconds it is worth looking again.
    retry_after: u64,
}

impl<'a> View<'a> {
    fn new(job: &'a Snapshot, elapsed: Duration, retry_after: u64) -> Self {
        let now = job.created_at + elapsed;
        let finish = job.estimated_finish_at;
        Self {
            job,
            elapsed,
            left: finish.and_then(|finish| finish.duration_since(now).ok()),
            retry_after,
        }
    }

    /// The template, filled in one pass: what is put in is not looked at again.
    fn html(&self) -> String {
        let mut parts = TEMPLATE.split("{{");
        let mut html = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, rest) = part.split_once("}}").expect("a name in the template");
            html.push_str(&self.slot(name));
            html.push_str(rest);
        }
        html
    }

    /// What stands in the template's route of this name.
    fn slot(&self, name: &str) -> Cow<'_, str> {
        let job = self.job;
        let is_ended = job.status.is_ended();
        let percent = job.progress.fraction.map(percent);
        let hidden_unless = |shown| match shown {
            true => "".into(),
            false => " hidden".into(),
        };
        match name {
            "id" => job.id.to_string().into(),
            "status" => job.status.as_str().into(),
            "created" => {
                let mut created = Vec::new();
                timestamp::write(&mut created, job.created_at);
                String::from_utf8(created).unwrap_or_default().into()
            }
            "elapsed_millis" => self.elapsed.as_millis().to_string().into(),
            "refresh" => self.refresh().into(),
            "title" => match percent.filter(|_| !is_ended) {
                Some(percent) => format!("{percent} % · {}", self.heading()).into(),
                None => self.heading().into(),
            },
            "heading" => self.heading().into(),
            "percent" => match percent.filter(|_| !is_ended) {
                Some(percent) => format!("{percent} %").into(),
                None => "".into(),
            },
            "message" => escape(job.progress.message.as_deref().unwrap_or_default()).into(),
            "value" => match percent {
                Some(percent) => format!(" aria-valuenow=\"{percent}\"").into(),
                None => "".into(),
            },
            "width" => format!("{}%", percent.unwrap_or(100)).into(),
            "problem" => match &job.error {
                Some(failure) => escape(&failure.message()).into(),
                None => "".into(),
            },
            "elapsed_label" => match is_ended {
                false => "Elapsed".into(),
                true => "Took".into(),
            },
            "elapsed" => words(self.elapsed).into(),
            "left" => self.left.map(begun).map(words).unwrap_or_default().into(),
            "result_label" => match job.status {
                Status::Succeeded => "Open the result".into(),
                _ => "Open the answer".into(),
            },
            "unless_unfinished" => hidden_unless(!is_ended),
            "unless_problem" => hidden_unless(job.error.is_some()),
            "unless_left" => hidden_unless(self.left.is_some()),
            "unless_response" => hidden_unless(job.response.is_some()),
            _ => unreachable!("no such route in the template: {name}"),
        }
    }

    fn heading(&self) -> &'static str {
        match self.job.status {
            Status::Queued => "Waiting for its turn",
            Status::Running => "In progress",
            Status::Succeeded => "Done",
            Status::Failed => "Failed",
            Status::Canceled => "Canceled",
        }
    }

    /// Where the page leads by itself. Not by a 303 once the result is there: a result that is downloaded
    /// leaves the browser where it was, and that should say that it is done.
    fn refresh(&self) -> String {
        match self.job.status {
            Status::Queued | Status::Running => {
                let seconds = self.retry_after.min(LONGEST_REFRESH);
                format!(r#"<noscript><meta http-equiv="refresh" content="{seconds}"></noscript>"#)
            }
            Status::Succeeded => {
                let id = self.job.id;
                format!(r#"<meta http-equiv="refresh" content="0; url={id}/result">"#)
            }
            Status::Failed | Status::Canceled => String::new(),
        }
    }
}

/// `8 s`, `3 min 20 s`, `2 h 5 min`; the script has the same.
fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// The time until a second that has begun is over: of what is left, none is told as 0.
fn begun(duration: Duration) -> Duration {
    duration + Duration::from_millis(999)
}

/// A text as it may stand in HTML, between tags or in a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            char => escaped.push(char),
        }
    }
    escaped
}

/// The source expression that allows what stands in the template between these tags.
fn hash_of(tag: &str) -> String {
    let between = TEMPLATE
        .split_once(&format!("<{tag}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
    let (text, _) = between.expect("a tag of the template");
    let mut base64 = [0; 44];
    let written = STANDARD.encode_slice(Sha256::digest(text), &mut base64);
    debug_assert_eq!(written.ok(), Some(base64.len()));
    format!("sha256-{}", str::from_utf8(&base64).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_told_in_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3_599, "59 min 59 s"),
            (7_500, "2 h 5 min"),
            (360_000, "100 h 0 min"),
        ] {
            assert_eq!(words(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn nothing_is_put_into_what_is_hashed() {
        for tag in ["style", "script"] {
            let (_, rest) = TEMPLATE.split_once(&format!("<{tag}>")).expect("a tag");
            let (text, _) = rest.split_once(&format!("</{tag}>")).expect("its end");
            assert!(!text.contains("{{"), "{tag}");
        }
        assert_eq!(TEMPLATE.matches("<script").count(), 1);
        assert!(!TEMPLATE.contains("style="));
    }

    proptest! {
        #[test]
        fn an_escaped_text_can_neither_open_a_tag_nor_leave_an_attribute(text: String) {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            let back = escaped
                .replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&quot;", "\"")
                .replace("&#39;", "'")
                .replace("&amp;", "&");
            prop_assert_eq!(back, text);
        }
    }
}
