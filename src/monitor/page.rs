//! Renders a job as an HTML page for browsers.

use std::{borrow::Cow, sync::LazyLock, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use sha2::{Digest, Sha256};

use super::{
    route::Resource,
    status::{NO_STORE, VARY},
};
use crate::{
    job::{Snapshot, Status, percent, write_timestamp},
    registry::Registry,
    store::ResultBody,
};

/// The page with its style and script. It loads no other file.
const TEMPLATE: &str = include_str!("page.html");

/// The maximum interval at which a page without script reloads, in seconds.
const MAX_REFRESH_SECS: u64 = 5;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");

/// Allows the page's own style and script by their hashes. Markup in a message has no effect.
static CONTENT_SECURITY_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        hash_of("style"),
        hash_of("script"),
    );
    HeaderValue::try_from(policy).expect("a policy of ASCII")
});

/// Returns the page of a job that ended without a response, for a request for its result or
/// output. It has the status that other clients get with a problem.
pub(super) fn no_response_page<St>(
    job: &Snapshot,
    status: StatusCode,
    at: Resource,
    registry: &Registry<St>,
) -> Response<ResultBody> {
    let mut response = page(job, at, registry);
    *response.status_mut() = status;
    // It is that of the page at the monitor.
    response.headers_mut().remove(header::ETAG);
    response
}

/// Returns the current page of `job`, with its `ETag`, as it is served `at` a resource.
pub(super) fn page<St>(
    job: &Snapshot,
    at: Resource,
    registry: &Registry<St>,
) -> Response<ResultBody> {
    let elapsed = Duration::from_secs(elapsed(job).as_secs());
    let refresh_after = registry.retry_after(job).unwrap_or_default();
    let refresh_after = refresh_after.min(MAX_REFRESH_SECS);
    registry.record_shown(job, refresh_after);
    let html = PageView::new(job, at, elapsed, refresh_after).html();
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
    // The page of an unfinished job shows its age, and so changes every second.
    let etag = format!("\"page-{}-{}\"", job.revision, elapsed.as_secs());
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

/// Returns the time from the creation of a job to its end, or until now.
fn elapsed(job: &Snapshot) -> Duration {
    match job.finished_at {
        Some(finished) => finished.duration_since(job.created_at).unwrap_or_default(),
        None => job.age,
    }
}

/// The values of the template's placeholders.
struct PageView<'a> {
    job: &'a Snapshot,
    /// The reference to the monitor of the job.
    link: String,
    elapsed: Duration,
    /// The estimated time left, unless it has passed.
    left: Option<Duration>,
    /// The time until a page without script reloads itself, in seconds.
    refresh_after: u64,
}

impl<'a> PageView<'a> {
    fn new(job: &'a Snapshot, at: Resource, elapsed: Duration, refresh_after: u64) -> Self {
        let now = job.created_at + elapsed;
        let finish = job.estimated_finish_at;
        Self {
            job,
            link: format!("{}{}", "../".repeat(at.depth()), job.id),
            elapsed,
            left: finish.and_then(|finish| finish.duration_since(now).ok()),
            refresh_after,
        }
    }

    /// Fills the template in one pass, so that a value is never searched for placeholders.
    fn html(&self) -> String {
        let mut parts = TEMPLATE.split("{{");
        let mut html = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, rest) = part.split_once("}}").expect("the end of a placeholder");
            html.push_str(&self.value(name));
            html.push_str(rest);
        }
        html
    }

    /// Returns the value of a placeholder.
    fn value(&self, name: &str) -> Cow<'_, str> {
        let job = self.job;
        let is_ended = job.status.is_ended();
        let percent = job.progress.fraction.map(percent);
        let hidden_unless = |is_shown| if is_shown { "" } else { " hidden" };
        match name {
            "link" => self.link.as_str().into(),
            "status" => job.status.as_str().into(),
            "created" => {
                let mut created = Vec::new();
                write_timestamp(&mut created, job.created_at);
                String::from_utf8(created).unwrap_or_default().into()
            }
            "elapsed_millis" => self.elapsed.as_millis().to_string().into(),
            "refresh" => self.refresh().into(),
            "data_output" => if self.has_output() {
                " data-output"
            } else {
                ""
            }
            .into(),
            "output_link" => self.output_link().into(),
            "title" => {
                let percent = percent.filter(|_| !is_ended);
                let percent = percent.map(|percent| format!("{percent} % · "));
                let name = job.title.as_deref();
                let name = name.map(|name| format!(" · {}", escape(name)));
                format!(
                    "{}{}{}",
                    percent.unwrap_or_default(),
                    self.heading(),
                    name.unwrap_or_default()
                )
                .into()
            }
            "name" => escape(job.title.as_deref().unwrap_or_default()).into(),
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
            "elapsed_label" => if is_ended { "Took" } else { "Elapsed" }.into(),
            "elapsed" => format_duration(self.elapsed).into(),
            "left" => {
                let left = self.left.map(round_up_to_seconds);
                left.map(format_duration).unwrap_or_default().into()
            }
            "result_label" => match job.status {
                Status::Succeeded => "Open the result".into(),
                _ => "Open the answer".into(),
            },
            "unless_unfinished" => hidden_unless(!is_ended).into(),
            "unless_problem" => hidden_unless(job.error.is_some()).into(),
            "unless_left" => hidden_unless(self.left.is_some()).into(),
            "unless_response" => hidden_unless(job.response.is_some()).into(),
            _ => unreachable!("unknown placeholder in the template: {name}"),
        }
    }

    /// Returns `true` if the job may have output that its result does not show.
    fn has_output(&self) -> bool {
        !self.job.status.is_ended() || self.job.partial.is_some()
    }

    /// Returns the link to the output, for browsers that run no script.
    ///
    /// It opens a page of its own, since the next refresh of this one would end the wait for the
    /// first byte.
    fn output_link(&self) -> String {
        if !self.has_output() {
            return String::new();
        }
        let link = &self.link;
        let label = if self.job.status.is_ended() {
            "Open what there is"
        } else {
            "Watch the output"
        };
        let link = format!(r#"href="{link}/stream" target="_blank" rel="noopener""#);
        format!("<noscript><a {link}>{label}</a></noscript>")
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

    /// Returns the element that reloads the page, or opens the result.
    ///
    /// A 303 cannot open the result: a browser that downloads it stays on the old page, which must
    /// then show that the job is done.
    fn refresh(&self) -> String {
        match self.job.status {
            Status::Queued | Status::Running => {
                let seconds = self.refresh_after;
                format!(r#"<noscript><meta http-equiv="refresh" content="{seconds}"></noscript>"#)
            }
            Status::Succeeded => {
                let link = &self.link;
                format!(r#"<meta http-equiv="refresh" content="0; url={link}/result">"#)
            }
            Status::Failed | Status::Canceled => String::new(),
        }
    }
}

/// Formats a duration as the script does: `8 s`, `3 min 20 s`, `2 h 5 min`.
fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

fn round_up_to_seconds(duration: Duration) -> Duration {
    Duration::from_secs((duration + Duration::from_millis(999)).as_secs())
}

/// Escapes a text for HTML, between tags or in a quoted attribute.
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

/// Returns the source expression that allows the content of the template's element `tag`.
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
    fn durations_have_at_most_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3_599, "59 min 59 s"),
            (7_500, "2 h 5 min"),
            (360_000, "100 h 0 min"),
        ] {
            assert_eq!(format_duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn hashed_elements_have_no_placeholder() {
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
        fn escaped_text_stays_inside_its_tag_or_attribute(text: String) {
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
