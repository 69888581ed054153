//! The call that a thread polls, and its handle.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    task::Context,
};

use super::{handle::JobHandle, id::JobId, progress::Progress};

thread_local! {
    /// The call or future that this thread polls at the moment.
    static CURRENT: Cell<Option<CurrentScope>> = const { Cell::new(None) };
}

enum CurrentScope {
    Call(CallScope),
    /// A future of [`JobHandle::scope`].
    Future(JobHandle),
}

impl JobHandle {
    /// Returns the handle of the call that this thread polls.
    ///
    /// Outside of a call, this returns a handle without a job. Its methods work but have no effect,
    /// so a handler runs unchanged without the layer. That includes a request that passes through
    /// the layer. Another task, as with `tokio::spawn` or `tower::buffer`, is outside of the call:
    /// move the handle into it, or wrap its future in [`scope`](Self::scope).
    pub fn current() -> Self {
        // The cell lends no reference: the scope is taken out and put back.
        CURRENT.with(|current| match current.take() {
            Some(mut scope) => {
                let handle = match &mut scope {
                    CurrentScope::Call(call) => call.handle(),
                    CurrentScope::Future(handle) => handle.clone(),
                };
                current.set(Some(scope));
                handle
            }
            None => Self::without_call(),
        })
    }

    /// Wraps a future so that [`JobHandle::current`] returns this handle in it, on any task.
    ///
    /// ```
    /// use tower_accepted::JobHandle;
    ///
    /// async fn draw(page: u32) {
    ///     JobHandle::current().message(format!("page {page}"));
    /// }
    ///
    /// async fn render() -> &'static str {
    ///     let job = JobHandle::current();
    ///     let pages = [1, 2].map(|page| tokio::spawn(job.scope(draw(page))));
    ///     for page in pages {
    ///         page.await.expect("no panic");
    ///     }
    ///     "the report"
    /// }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(render());
    /// ```
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let handle = self.clone();
        async move {
            let mut future = pin!(future);
            poll_fn(|cx| handle.enter(|| future.as_mut().poll(cx))).await
        }
    }

    /// Runs `poll` while this handle is current.
    fn enter<R>(&self, poll: impl FnOnce() -> R) -> R {
        /// Restores the outer scope, even if `poll` panics.
        struct Restore(Option<CurrentScope>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let ours = CurrentScope::Future(self.clone());
        let _restore = Restore(CURRENT.replace(Some(ours)));
        poll()
    }
}

/// The layer's share of a [`JobHandle`]. Dropping it notifies the others that the call is over.
pub(crate) struct HandleGuard(JobHandle);

impl Drop for HandleGuard {
    fn drop(&mut self) {
        self.0.decide(None);
        self.0.cancel();
    }
}

/// The layer's side of a [`JobHandle`].
///
/// It makes the handle current while the call is polled. The handle is created by the first call of
/// [`JobHandle::current`], so a service that never calls it pays nothing.
#[derive(Default)]
pub(crate) struct CallScope {
    handle: Option<HandleGuard>,
    id: Option<JobId>,
}

impl CallScope {
    /// Runs `poll` while this call's handle is current.
    pub(crate) fn enter<R>(&mut self, poll: impl FnOnce() -> R) -> R {
        /// Restores both scopes, even if `poll` panics.
        struct Restore<'a> {
            ours: &'a mut CallScope,
            outer: Option<CurrentScope>,
        }
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                let ours = CURRENT.replace(self.outer.take());
                if let Some(CurrentScope::Call(ours)) = ours {
                    *self.ours = ours;
                }
            }
        }
        let ours = CurrentScope::Call(std::mem::take(self));
        let outer = CURRENT.replace(Some(ours));
        let _restore = Restore { ours: self, outer };
        poll()
    }

    /// Sets the id of the job that the call has become.
    pub(crate) fn accept(&mut self, id: JobId) {
        self.id = Some(id);
        if let Some(HandleGuard(handle)) = &self.handle {
            handle.decide(Some(id));
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

    /// Notifies the inner service that its work is no longer needed. Returns `true` if it holds a
    /// handle or a token.
    pub(crate) fn cancel(&self) -> bool {
        let handle = self.handle.as_ref();
        handle.is_some_and(|HandleGuard(handle)| handle.cancel())
    }

    /// Takes the handle of a call that is answered inline, if the call has asked for it.
    ///
    /// The work goes on in the response's body, which must hold the guard.
    pub(crate) fn answer_inline(&mut self) -> Option<HandleGuard> {
        let guard = self.handle.take()?;
        guard.0.decide(None);
        Some(guard)
    }

    /// Returns the progress if it has changed since the last call. Otherwise, the next report wakes
    /// `cx`.
    pub(crate) fn take_change(&mut self, cx: &Context<'_>) -> Option<Progress> {
        self.handle.as_ref()?.0.take_change(cx)
    }

    /// Returns the last progress that was reported.
    pub(crate) fn progress(&self) -> Progress {
        let handle = self.handle.as_ref();
        let progress = handle.map(|HandleGuard(handle)| handle.last_progress());
        progress.unwrap_or_default()
    }

    fn handle(&mut self) -> JobHandle {
        let guard = self
            .handle
            .get_or_insert_with(|| HandleGuard(JobHandle::of_call(self.id)));
        guard.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn handle_without_a_job_has_no_effect() {
        let handle = JobHandle::current();
        handle.progress(0.5);
        handle.message("on its own");
        assert_eq!(handle.id(), None);
        assert!(!handle.is_canceled() && !handle.token().is_cancelled());
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
    fn scoped_future_has_the_handle_of_its_call() {
        let mut scope = CallScope::default();
        let handle = scope.enter(JobHandle::current);
        let mut scoped = pin!(handle.scope(async {
            JobHandle::current().progress(0.5);
        }));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(scoped.as_mut().poll(&mut cx).is_ready());
        assert_eq!(scope.progress().fraction, Some(0.5));
        assert!(CURRENT.with(Cell::take).is_none());
    }

    #[test]
    fn grace_period_needs_a_handle_or_a_token() {
        let mut scope = CallScope::default();
        assert!(!scope.cancel());
        drop(scope.enter(JobHandle::current));
        assert!(!scope.cancel());
        let mut scope = CallScope::default();
        let token = scope.enter(|| JobHandle::current().token());
        assert!(!token.is_cancelled());
        assert!(scope.cancel());
        assert!(token.is_cancelled());
    }

    #[test]
    fn canceled_token_does_not_cancel_its_job() {
        let mut scope = CallScope::default();
        let handle = scope.enter(JobHandle::current);
        handle.token().cancel();
        assert!(!handle.is_canceled());
    }
}
