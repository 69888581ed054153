//! Reports progress from the inner service, and notifies it when its job is canceled.

use std::{
    cell::Cell,
    fmt,
    sync::Arc,
    task::{Context, Waker},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::JobId;

/// The maximum length of a message. A longer one is cut between characters.
const MAX_MESSAGE_BYTES: usize = 512;

thread_local! {
    /// The call that this thread polls at the moment.
    static CURRENT: Cell<Option<CallScope>> = const { Cell::new(None) };
}

/// Reports progress from the inner service, and notifies it when its job is canceled.
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
    /// Returns the handle of the call that this thread polls.
    ///
    /// Outside of a call, this returns a handle without a job. Its methods work but have no effect,
    /// so a handler runs unchanged without the layer. Another task, as with `tokio::spawn` or
    /// `tower::buffer`, is outside of the call: move the handle into it.
    pub fn current() -> Self {
        // The cell lends no reference: the scope is taken out and put back.
        CURRENT.with(|current| match current.take() {
            Some(mut scope) => {
                let handle = scope.handle();
                current.set(Some(scope));
                handle
            }
            None => CallScope::default().handle(),
        })
    }

    /// Returns the job's id, or `None` if the request is not accepted yet.
    ///
    /// With [`When::After`](crate::When::After), a call becomes a job after the delay.
    pub fn id(&self) -> Option<JobId> {
        self.state.reported.lock().id
    }

    /// Reports the fraction of the work that is done, from 0 to 1.
    ///
    /// Values outside this range are clamped, and NaN is ignored. Frequent calls are cheap: clients
    /// receive the latest report at most every 50 ms, and always the last one before the job ends.
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

    /// Completes when the job is canceled, deleted or timed out.
    ///
    /// The call then has a grace period to clean up, after which it is dropped. A drain that ends
    /// drops the call without a grace period.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe.
    pub async fn canceled(&self) {
        self.state.canceled.cancelled().await;
    }

    /// Returns `true` if the job is canceled, deleted or timed out.
    ///
    /// Blocking code can check this between two steps.
    pub fn is_canceled(&self) -> bool {
        self.state.canceled.is_cancelled()
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
    canceled: CancellationToken,
}

struct ReportedState {
    id: Option<JobId>,
    fraction: Option<f64>,
    /// Each report overwrites this buffer. A shared copy is made only when the message is read,
    /// which is less often than it is reported.
    message: String,
    is_message_new: bool,
    /// The message that was last read.
    shared_message: Option<Arc<str>>,
    is_changed: bool,
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
        }
    }
}

/// The last progress that the inner service reported.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The fraction of the work that is done, from 0 to 1.
    pub fraction: Option<f64>,
    /// The current step.
    pub message: Option<Arc<str>>,
}

/// The layer's side of a [`JobHandle`].
///
/// It makes the handle current while the call is polled. The handle is created by the first call of
/// [`JobHandle::current`], so a service that never calls it pays nothing.
#[derive(Default)]
pub(crate) struct CallScope {
    handle: Option<JobHandle>,
    id: Option<JobId>,
}

impl CallScope {
    /// Runs `poll` while this call's handle is current.
    pub(crate) fn enter<R>(&mut self, poll: impl FnOnce() -> R) -> R {
        /// Restores both scopes, even if `poll` panics.
        struct Restore<'a> {
            ours: &'a mut CallScope,
            outer: Option<CallScope>,
        }
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                if let Some(ours) = CURRENT.with(|current| current.replace(self.outer.take())) {
                    *self.ours = ours;
                }
            }
        }
        let outer = CURRENT.with(|current| current.replace(Some(std::mem::take(self))));
        let _restore = Restore { ours: self, outer };
        poll()
    }

    /// Sets the id of the job that the call has become.
    pub(crate) fn accept(&mut self, id: JobId) {
        self.id = Some(id);
        if let Some(handle) = &self.handle {
            handle.state.reported.lock().id = Some(id);
        }
    }

    /// Returns the job's id, if the call has become one.
    pub(crate) fn id(&self) -> Option<JobId> {
        self.id
    }

    /// Returns `true` if the call has become a job.
    pub(crate) fn is_job(&self) -> bool {
        self.id.is_some()
    }

    /// Notifies the inner service that its job is canceled. Returns `true` if it holds a handle.
    pub(crate) fn cancel(&self) -> bool {
        self.handle.as_ref().is_some_and(|handle| {
            handle.state.canceled.cancel();
            Arc::strong_count(&handle.state) > 1
        })
    }

    /// Returns the progress if it has changed since the last call. Otherwise, the next report wakes
    /// `cx`.
    pub(crate) fn take_change(&mut self, cx: &Context<'_>) -> Option<Progress> {
        let mut reported = self.handle.as_ref()?.state.reported.lock();
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
    pub(crate) fn progress(&self) -> Progress {
        self.handle
            .as_ref()
            .map(|handle| handle.state.reported.lock().progress())
            .unwrap_or_default()
    }

    fn handle(&mut self) -> JobHandle {
        self.handle
            .get_or_insert_with(|| {
                let reported = Mutex::new(ReportedState {
                    id: self.id,
                    fraction: None,
                    message: String::new(),
                    is_message_new: false,
                    shared_message: None,
                    is_changed: false,
                    waker: None,
                });
                JobHandle {
                    state: Arc::new(HandleState {
                        reported,
                        canceled: CancellationToken::new(),
                    }),
                }
            })
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handle_without_a_job_has_no_effect() {
        let handle = JobHandle::current();
        handle.progress(0.5);
        handle.message("on its own");
        assert_eq!(handle.id(), None);
        assert!(!handle.is_canceled());
    }

    #[test]
    fn nested_calls_have_handles_of_their_own() {
        let (mut outer, mut inner) = (CallScope::default(), CallScope::default());
        outer.enter(|| {
            JobHandle::current().progress(0.25);
            inner.enter(|| JobHandle::current().progress(0.75));
            JobHandle::current().message("outside");
        });
        assert_eq!(outer.progress().fraction, Some(0.25));
        assert_eq!(outer.progress().message.as_deref(), Some("outside"));
        assert_eq!(inner.progress().fraction, Some(0.75));
    }

    #[test]
    fn panic_resets_the_current_call() {
        let mut scope = CallScope::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            scope.enter(|| {
                JobHandle::current().progress(0.5);
                panic!("in the call");
            });
        }));
        assert!(panicked.is_err());
        assert_eq!(scope.progress().fraction, Some(0.5));
        assert!(CURRENT.with(Cell::take).is_none());
    }

    #[test]
    fn fraction_is_clamped_and_nan_is_ignored() {
        let mut scope = CallScope::default();
        let handle = scope.handle();
        for (given, kept) in [(1.5, 1.0), (f64::NAN, 1.0), (-1.0, 0.0)] {
            handle.progress(given);
            assert_eq!(scope.progress().fraction, Some(kept));
        }
    }

    #[test]
    fn long_message_is_cut_between_characters() {
        let mut scope = CallScope::default();
        scope.handle().message("é".repeat(400) + "x");
        let message = scope.progress().message.expect("a message");
        assert_eq!(message.len(), MAX_MESSAGE_BYTES);
        scope.handle().message("x".to_owned() + &"é".repeat(400));
        let message = scope.progress().message.expect("a message");
        assert_eq!(message.len(), MAX_MESSAGE_BYTES - 1);
    }
}
