//! Reports the progress of a followed job.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, Uri};

use super::StatusDocument;

/// The progress of a job in FHIR's asynchronous pattern.
const X_PROGRESS: HeaderName = HeaderName::from_static("x-progress");

/// The status of a job after one poll or event.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Update {
    /// The URI of the job's monitor.
    pub monitor: Uri,
    /// The number of polls so far. All events together count as one. It is 0 for the status in the
    /// 202 itself.
    pub polls: u32,
    /// The progress from 0 to 100, if the server reports it.
    pub percent: Option<f64>,
    /// The progress as text, if the server reports it.
    pub message: Option<String>,
    /// The status document, if the server sent one.
    pub document: Option<StatusDocument>,
}

impl Update {
    pub(super) fn new(
        monitor: Uri,
        polls: u32,
        headers: &HeaderMap,
        document: Option<StatusDocument>,
    ) -> Self {
        let (mut percent, mut message) = headers
            .get(X_PROGRESS)
            .and_then(|value| str::from_utf8(value.as_bytes()).ok())
            .map_or((None, None), parse_x_progress);
        if let Some(document) = &document {
            percent = document.percent_complete().or(percent);
            message = document.message().map(str::to_owned).or(message);
        }
        Self {
            monitor,
            polls,
            percent,
            message,
            document,
        }
    }
}

/// Parses `40%`, `40% of the pages` or text alone. The format is up to the server.
fn parse_x_progress(text: &str) -> (Option<f64>, Option<String>) {
    let text = text.trim();
    let percent = text.split_once('%').and_then(|(number, rest)| {
        let number: f64 = number.trim().parse().ok()?;
        Some((number.is_finite().then(|| number.clamp(0.0, 100.0))?, rest))
    });
    let (percent, message) = match percent {
        Some((percent, rest)) => (Some(percent), rest.trim()),
        None => (None, text),
    };
    (
        percent,
        Some(message)
            .filter(|message| !message.is_empty())
            .map(str::to_owned),
    )
}

/// A callback that receives the status of a job after each poll or event.
///
/// [`on_update`](super::FollowAcceptedLayer::on_update) sets one for all jobs. An observer in the
/// extensions of a request replaces it for that request.
///
/// The task that follows the job runs the callback, so it should not block. To get a stream of
/// updates, send them to a channel:
///
/// ```
/// use http::Request;
/// use tokio::sync::mpsc::unbounded_channel;
/// use tower_accepted::follow::Observer;
///
/// let (sender, updates) = unbounded_channel();
/// let observer = Observer::new(move |update| {
///     let _ = sender.send(update);
/// });
/// let mut request = Request::post("http://example.com/reports").body(())?;
/// request.extensions_mut().insert(observer);
/// # drop(updates);
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone)]
pub struct Observer {
    callback: Arc<dyn Fn(Update) + Send + Sync>,
}

impl Observer {
    /// Creates an observer from a callback.
    pub fn new(callback: impl Fn(Update) + Send + Sync + 'static) -> Self {
        Self {
            callback: Arc::new(callback),
        }
    }

    pub(super) fn notify(&self, update: Update) {
        (self.callback)(update);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x_progress_is_a_percentage_text_or_both() {
        for (text, percent, message) in [
            ("40%", Some(40.0), None),
            ("12.5 % page 3", Some(12.5), Some("page 3")),
            ("in progress", None, Some("in progress")),
            ("about 40% done", None, Some("about 40% done")),
            ("140%", Some(100.0), None),
            ("NaN%", None, Some("NaN%")),
            ("", None, None),
        ] {
            let message = message.map(str::to_owned);
            assert_eq!(parse_x_progress(text), (percent, message), "{text}");
        }
    }
}
