use std::{
    cell::Cell,
    fmt,
    sync::Arc,
    task::{Context, Waker},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::JobId;

/// The longest message kept, in bytes of UTF-8; a longer one is cut at a character's edge.
const MAX_MESSAGE: usize = 512;

thread_local! {
    /// The call that this thread is polling, while it polls it.
    static CURRENT: Cell<Option<CallScope>> = const { Cell::new(None) };
}

/// The job as the inner service sees it: tell how far it is, hear that it is no longer wanted.
///
/// Ask for it with [`JobHandle::current`] in the inner service's call or in the future it returned,
/// then take it wherever the work goes: it is a cheap clone, can be used from any thread, blocking
/// ones included, and after the job ended (then without effect).
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
    shared: Arc<Shared>,
}

impl JobHandle {
    /// The handle of the call being polled on this thread.
    ///
    /// Outside any call of this layer it is a handle of nothing, on which everything works and
    /// nothing has an effect, so that a handler runs the same without the layer. A service that sends
    /// the request to another task (`tower::buffer`, `tokio::spawn`) keeps the handle only if it
    /// takes it along.
    pub fn current() -> Self {
        // The scope is taken out and put back: no borrow is held, so nothing can be re-entered.
        CURRENT.with(|current| match current.take() {
            Some(mut scope) => {
                let handle = scope.handle();
                current.set(Some(scope));
                handle
            }
            None => CallScope::default().handle(),
        })
    }

    /// The job's id, or `None` until the request is accepted: a call that may yet be answered inline
    /// ([`When::After`](crate::When::After)) is no job.
    pub fn id(&self) -> Option<JobId> {
        self.shared.reported.lock().id
    }

    /// Reports how much is done, from 0 to 1; values outside are brought inside, NaN is ignored.
    ///
    /// It may be called as often as there is something to tell: what is told within 50 ms reaches those
    /// who watch at once, as the last of it, and the last before the job's end always does.
    pub fn progress(&self, fraction: f64) {
        if !fraction.is_nan() {
            let fraction = fraction.clamp(0.0, 1.0);
            self.report(|reported| reported.fraction = Some(fraction));
        }
    }

    /// Reports in words what is being done, for people; at most 512 bytes are kept.
    ///
    /// The text is shown to whoever may see the job.
    pub fn message(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        let mut end = text.len().min(MAX_MESSAGE);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.report(|reported| {
            reported.message.clear();
            reported.message.push_str(&text[..end]);
            reported.is_message_new = true;
        });
    }

    /// Waits until the job is no longer wanted: canceled, deleted or timed out. The call is dropped a
    /// grace period after that; when the process shuts down, at once.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe.
    pub async fn canceled(&self) {
        self.shared.canceled.cancelled().await;
    }

    /// Whether the job is no longer wanted; what blocking code asks between two steps.
    pub fn is_canceled(&self) -> bool {
        self.shared.canceled.is_cancelled()
    }

    fn report(&self, change: impl FnOnce(&mut Reported)) {
        let waker = {
            let mut reported = self.shared.reported.lock();
            change(&mut reported);
            reported.changed = true;
            reported.waker.take()
        };
        // Woken outside the lock, and once for all that is reported until the task looks again, which it
        // does at most every 50 ms.
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

struct Shared {
    /// Held for a few assignments or for one copy of a message, never across a wake-up or an await.
    reported: Mutex<Reported>,
    canceled: CancellationToken,
}

struct Reported {
    id: Option<JobId>,
    fraction: Option<f64>,
    /// Written over by each report. What is shared with those who watch is made when they look, which is
    /// seldom as often as there is something to tell.
    message: String,
    is_message_new: bool,
    /// The message that was last looked at.
    shared_message: Option<Arc<str>>,
    changed: bool,
    waker: Option<Waker>,
}

impl Reported {
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

/// What the inner service last told about its progress.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// From 0 to 1.
    pub fraction: Option<f64>,
    /// In words.
    pub message: Option<Arc<str>>,
}

/// The layer's end of a [`JobHandle`]: makes it current while the call is polled, and makes it at
/// all only where somebody asks.
#[derive(Default)]
pub(crate) struct CallScope {
    handle: Option<JobHandle>,
    id: Option<JobId>,
}

impl CallScope {
    /// Runs `poll` with this call's handle as the current one.
    pub(crate) fn enter<R>(&mut self, poll: impl FnOnce() -> R) -> R {
        /// Puts both scopes back where they were, also when `poll` panics.
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

    /// The call has become a job.
    pub(crate) fn accept(&mut self, id: JobId) {
        self.id = Some(id);
        if let Some(handle) = &self.handle {
            handle.shared.reported.lock().id = Some(id);
        }
    }

    /// Returns the job's id, if the call has become one.
    pub(crate) fn id(&self) -> Option<JobId> {
        self.id
    }

    /// Whether the call has become one.
    pub(crate) fn is_job(&self) -> bool {
        self.id.is_some()
    }

    /// Tells the inner service that it is no longer wanted. Returns whether it could hear that.
    pub(crate) fn cancel(&self) -> bool {
        self.handle.as_ref().is_some_and(|handle| {
            handle.shared.canceled.cancel();
            Arc::strong_count(&handle.shared) > 1
        })
    }

    /// What was reported since this was last asked; else `cx` is woken by the next report.
    pub(crate) fn take_change(&mut self, cx: &Context<'_>) -> Option<Progress> {
        let mut reported = self.handle.as_ref()?.shared.reported.lock();
        if std::mem::take(&mut reported.changed) {
            return Some(reported.progress());
        }
        match &mut reported.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        None
    }

    /// The last that was reported.
    pub(crate) fn progress(&self) -> Progress {
        self.handle
            .as_ref()
            .map(|handle| handle.shared.reported.lock().progress())
            .unwrap_or_default()
    }

    fn handle(&mut self) -> JobHandle {
        self.handle
            .get_or_insert_with(|| {
                let reported = Mutex::new(Reported {
                    id: self.id,
                    fraction: None,
                    message: String::new(),
                    is_message_new: false,
                    shared_message: None,
                    changed: false,
                    waker: None,
                });
                JobHandle {
                    shared: Arc::new(Shared {
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
    fn a_handle_of_nothing_takes_everything() {
        let handle = JobHandle::current();
        handle.progress(0.5);
        handle.message("on its own");
        assert_eq!(handle.id(), None);
        assert!(!handle.is_canceled());
    }

    #[test]
    fn one_call_has_one_handle_and_nested_calls_have_their_own() {
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
    fn a_panic_leaves_no_call_behind_as_the_current_one() {
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
    fn what_is_no_fraction_is_brought_inside_or_ignored() {
        let mut scope = CallScope::default();
        let handle = scope.handle();
        for (given, kept) in [(1.5, 1.0), (f64::NAN, 1.0), (-1.0, 0.0)] {
            handle.progress(given);
            assert_eq!(scope.progress().fraction, Some(kept));
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let mut scope = CallScope::default();
        scope.handle().message("é".repeat(400) + "x");
        let message = scope.progress().message.expect("a message");
        assert_eq!(message.len(), MAX_MESSAGE);
        scope.handle().message("x".to_owned() + &"é".repeat(400));
        let message = scope.progress().message.expect("a message");
        assert_eq!(message.len(), MAX_MESSAGE - 1);
    }
}
