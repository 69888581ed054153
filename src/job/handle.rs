//! Reports progress from the inner service, and notifies it when its work is no longer needed.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Waker},
};

use parking_lot::Mutex;
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use super::{id::JobId, progress::Progress, title::title};

/// The maximum length of a message. A longer one is cut between characters.
const MAX_MESSAGE_BYTES: usize = 512;

/// Reports progress from the inner service, and notifies it when its work is no longer needed.
///
/// Call [`JobHandle::current`] in the inner service's `call`, in its future or in its response
/// body, then move the handle to wherever the work runs. Clones are cheap, and any thread can use
/// one, including blocking threads. After the job has ended, reports have no effect.
///
/// ```
/// use tower_accepted::JobHandle;
///
/// async fn render() -> String {
///     let job = JobHandle::current();
///     job.title("Annual report");
///     let pages = tokio::task::spawn_blocking(move || {
///         for page in 1..=10 {
///             if job.is_canceled() {
///                 break;
///             }
///             // … render a page …
///             job.progress(f64::from(page) / 10.0);
///             job.message(format!("page {page} of 10"));
///         }
///     });
///     pages.await.expect("the renderer does not panic");
///     "done".to_owned()
/// }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(render());
/// ```
#[derive(Clone)]
pub struct JobHandle {
    state: Arc<HandleState>,
}

impl JobHandle {
    /// Creates the handle of a call, which may have become a job already.
    pub(super) fn of_call(id: Option<JobId>) -> Self {
        Self::new(id.map(Some))
    }

    /// Creates a handle without a call.
    pub(super) fn without_call() -> Self {
        Self::new(Some(None))
    }

    fn new(accepted: Option<Option<JobId>>) -> Self {
        let state = HandleState {
            reported: Mutex::default(),
            accepted: SetOnce::new_with(accepted),
            canceled: CancellationToken::new(),
        };
        Self {
            state: Arc::new(state),
        }
    }

    /// Returns the job's id, or `None` if the request is not a job, or not yet.
    ///
    /// With [`When::After`](crate::When::After), a call becomes a job after the delay.
    pub fn id(&self) -> Option<JobId> {
        self.state.accepted.get().copied().flatten()
    }

    /// Completes with the job's id once the request has become a job, or with `None` if it does not
    /// become one.
    ///
    /// With [`When::After`](crate::When::After), a call becomes a job after the delay. The result is
    /// `None` if the call is answered inline, or if its client disconnects before. Outside of a
    /// call, it is `None` at once.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_accepted::JobHandle;
    ///
    /// async fn render() -> &'static str {
    ///     let job = JobHandle::current();
    ///     tokio::spawn(async move {
    ///         if let Some(id) = job.accepted().await {
    ///             println!("the report takes a while: it is job {id}");
    ///         }
    ///     });
    ///     "the report"
    /// }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(render());
    /// ```
    pub async fn accepted(&self) -> Option<JobId> {
        *self.state.accepted.wait().await
    }

    /// Reports the fraction of the work that is done, from 0 to 1.
    ///
    /// Values outside this range are clamped, and NaN is ignored. Frequent calls are cheap: clients
    /// receive the latest report at most every 50 ms, and always the last one before the job ends.
    /// If a job succeeds that has reported a fraction, the layer sets it to 1.
    pub fn progress(&self, fraction: f64) {
        if !fraction.is_nan() {
            let fraction = fraction.clamp(0.0, 1.0);
            self.report(|reported| reported.fraction = Some(fraction));
        }
    }

    /// Reports the current step as text, for people. Longer texts are cut to 512 bytes.
    ///
    /// The text is visible to every client that can see the job.
    pub fn message(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        let mut end = text.len().min(MAX_MESSAGE_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.report(|reported| {
            reported.message.clear();
            reported.message.push_str(&text[..end]);
            reported.is_message_new = true;
        });
    }

    /// Sets the title of the job, for people. Longer texts are cut to 200 characters, and a blank
    /// one is ignored. Control characters and marks of the text's direction become spaces.
    ///
    /// It replaces a title of [`AcceptedLayer::title`](crate::AcceptedLayer::title). The text is
    /// visible to every client that can see the job: in the status document, in lists and on the
    /// page.
    ///
    /// ```
    /// use tower_accepted::JobHandle;
    ///
    /// async fn render(year: u16) -> &'static str {
    ///     JobHandle::current().title(format!("Annual report {year}"));
    ///     "the report"
    /// }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(render(2026));
    /// ```
    pub fn title(&self, text: impl AsRef<str>) {
        if let Some(title) = title(text.as_ref()) {
            self.report(|reported| reported.title = Some(title));
        }
    }

    /// Completes when the work is no longer needed:
    ///
    /// - The job is canceled, deleted or timed out, or its process shuts down.
    /// - The client has disconnected before the request became a job.
    /// - The job has ended, unless its submitter still reads the response.
    /// - The response of a call that is answered inline has been sent.
    ///
    /// In a call that may become a job, this always completes, so a task that awaits it cannot
    /// leak. Outside of a call, and in a request that passes through, such as a `GET` by default,
    /// it never does.
    ///
    /// A call that is canceled, deleted or timed out, and still holds its handle or has taken a
    /// [`token`](Self::token), has a [grace period](crate::JobsBuilder::cancel_grace) to clean up.
    /// Then it is dropped. A drain that ends drops the call without a grace period.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_accepted::JobHandle;
    ///
    /// async fn render() -> &'static str {
    ///     let job = JobHandle::current();
    ///     tokio::select! {
    ///         () = job.canceled() => "nobody reads this",
    ///         report = async { "the report" } => report,
    ///     }
    /// }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(render());
    /// ```
    pub async fn canceled(&self) {
        self.state.canceled.cancelled().await;
    }

    /// Returns `true` if the work is no longer needed, as [`canceled`](Self::canceled) defines it.
    ///
    /// Blocking code can check this between two steps.
    pub fn is_canceled(&self) -> bool {
        self.state.canceled.is_cancelled()
    }

    /// Returns a token that is canceled when the work is no longer needed, as
    /// [`canceled`](Self::canceled) defines it.
    ///
    /// It is for code that takes tokens of `tokio-util`. Canceling the token does not cancel the
    /// job.
    ///
    /// ```
    /// use tokio_util::sync::CancellationToken;
    /// use tower_accepted::JobHandle;
    ///
    /// async fn query(stop: CancellationToken) -> Option<&'static str> {
    ///     stop.run_until_cancelled(async { "rows" }).await
    /// }
    ///
    /// async fn report() -> &'static str {
    ///     let stop = JobHandle::current().token();
    ///     query(stop).await.unwrap_or("stopped")
    /// }
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// # assert_eq!(runtime.block_on(report()), "rows");
    /// ```
    pub fn token(&self) -> CancellationToken {
        self.state.reported.lock().has_token = true;
        self.state.canceled.child_token()
    }

    fn report(&self, change: impl FnOnce(&mut ReportedState)) {
        let waker = {
            let mut reported = self.state.reported.lock();
            change(&mut reported);
            reported.is_changed = true;
            reported.waker.take()
        };
        // Woken outside the lock, and only by the first report since the task last took a change.
        // The task does so at most every 50 ms.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Decides which job the call has become: `None` if it does not become one. The first decision
    /// holds.
    pub(super) fn decide(&self, id: Option<JobId>) {
        // An error means that it is decided.
        let _ = self.state.accepted.set(id);
    }

    /// Notifies the other shares that the work is no longer needed. Returns `true` if the inner
    /// service can notice.
    pub(super) fn cancel(&self) -> bool {
        self.state.canceled.cancel();
        // Nothing counts the clones of a token.
        Arc::strong_count(&self.state) > 1 || self.state.reported.lock().has_token
    }

    /// Returns the progress if it has changed since the last call. Otherwise, the next report wakes
    /// `cx`.
    pub(super) fn take_change(&self, cx: &Context<'_>) -> Option<Progress> {
        let mut reported = self.state.reported.lock();
        if std::mem::take(&mut reported.is_changed) {
            return Some(reported.progress());
        }
        match &mut reported.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        None
    }

    /// Returns the last progress that was reported.
    pub(super) fn last_progress(&self) -> Progress {
        self.state.reported.lock().progress()
    }
}

impl fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle")
            .field("id", &self.id())
            .field("canceled", &self.is_canceled())
            .finish()
    }
}

struct HandleState {
    /// Locked for a few assignments or one copy of a message, never across a wake or an await.
    reported: Mutex<ReportedState>,
    /// The job that the call has become, once that is decided.
    accepted: SetOnce<Option<JobId>>,
    canceled: CancellationToken,
}

#[derive(Default)]
struct ReportedState {
    fraction: Option<f64>,
    /// Each report overwrites this buffer. A shared copy is made only when the message is read,
    /// which is less often than it is reported.
    message: String,
    is_message_new: bool,
    /// The message that was last read.
    shared_message: Option<Arc<str>>,
    title: Option<Arc<str>>,
    is_changed: bool,
    /// Set once the inner service has a token.
    has_token: bool,
    waker: Option<Waker>,
}

impl ReportedState {
    fn progress(&mut self) -> Progress {
        if std::mem::take(&mut self.is_message_new) {
            self.shared_message = Some(self.message.as_str().into());
        }
        Progress {
            fraction: self.fraction,
            message: self.shared_message.clone(),
            title: self.title.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fraction_is_clamped_and_nan_is_ignored() {
        let handle = JobHandle::of_call(None);
        for (given, kept) in [(1.5, 1.0), (f64::NAN, 1.0), (-1.0, 0.0)] {
            handle.progress(given);
            assert_eq!(handle.last_progress().fraction, Some(kept));
        }
    }

    #[test]
    fn long_message_is_cut_between_characters() {
        let handle = JobHandle::of_call(None);
        handle.message("é".repeat(400) + "x");
        let message = handle.last_progress().message.expect("a message");
        assert_eq!(message.len(), MAX_MESSAGE_BYTES);
        handle.message("x".to_owned() + &"é".repeat(400));
        let message = handle.last_progress().message.expect("a message");
        assert_eq!(message.len(), MAX_MESSAGE_BYTES - 1);
    }

    #[test]
    fn empty_title_leaves_the_title() {
        let handle = JobHandle::of_call(None);
        handle.title("a report");
        handle.title("");
        let title = handle.last_progress().title;
        assert_eq!(title.as_deref(), Some("a report"));
    }
}
