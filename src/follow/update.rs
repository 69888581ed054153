use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, Uri};

use super::StatusDocument;

/// Where servers of FHIR's asynchronous pattern tell how far they are.
const X_PROGRESS: HeaderName = HeaderName::from_static("x-progress");

/// What one look at a job has shown.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Update {
    /// The job's monitor.
    pub monitor: Uri,
    /// How often it has been asked so far: 0 with what the 202 itself told.
    pub polls: u32,
    /// How much is done, in percent, as the server has it.
    pub percent: Option<f64>,
    /// What the server tells people.
    pub message: Option<String>,
    /// The status document, where the server has such.
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
            .map_or((None, None), x_progress);
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

/// `40%`, `40% of the pages` or a text alone: what it holds is up to the server.
fn x_progress(text: &str) -> (Option<f64>, Option<String>) {
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

/// Hears of each look at a job.
///
/// One that the layer was given ([`on_update`](super::FollowAcceptedLayer::on_update)) hears of every
/// job; one in the extensions of a request hears of that one's, in the other's place.
///
/// It is called on the task that follows the job, so it should not block. To have a stream of
/// updates, let it send them into a channel:
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
    hear: Arc<dyn Fn(Update) + Send + Sync>,
}

impl Observer {
    /// An observer that calls `hear`.
    pub fn new(hear: impl Fn(Update) + Send + Sync + 'static) -> Self {
        Self {
            hear: Arc::new(hear),
        }
    }

    pub(super) fn hear(&self, update: Update) {
        (self.hear)(update);
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
    fn x_progress_is_a_percentage_a_text_or_both() {
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
            assert_eq!(x_progress(text), (percent, message), "{text}");
        }
    }
}
