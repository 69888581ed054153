//! Cancels the job of a dropped future.

use std::{error::Error, fmt, time::Duration};

use http::Request;
use tokio::{runtime::Handle, time::timeout};
use tower_service::Service;

use super::{oneshot::oneshot, origin::FollowTarget, template::RequestTemplate};
use crate::protocol::BoxError;

/// Cancels a job when it is dropped while armed.
#[derive(Default)]
pub(super) struct CancelOnDrop {
    send: Option<Box<dyn FnOnce() + Send>>,
}

impl CancelOnDrop {
    /// Arms the guard for the job at `target`. The request is given up after `limit`.
    pub(super) fn arm<S, B>(
        &mut self,
        service: &S,
        template: &RequestTemplate,
        target: &FollowTarget,
        limit: Duration,
    ) where
        S: Service<Request<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Response: Send,
        S::Error: Into<BoxError> + Send,
        B: Default + Send + 'static,
    {
        let service = service.clone();
        let request = template.cancel(target);
        self.send = Some(Box::new(move || {
            let Ok(runtime) = Handle::try_current() else {
                tracing::debug!("failed to cancel job: future dropped outside a runtime");
                return;
            };
            runtime.spawn(async move {
                let sent = timeout(limit, oneshot(service, request)).await;
                let error: BoxError = match sent {
                    Ok(Ok(_)) => return tracing::debug!("canceled job of a dropped future"),
                    Ok(Err(error)) => error.into(),
                    Err(elapsed) => elapsed.into(),
                };
                let error = &*error as &dyn Error;
                tracing::debug!(error, "failed to cancel job of a dropped future");
            });
        }));
    }

    pub(super) fn is_armed(&self) -> bool {
        self.send.is_some()
    }

    pub(super) fn disarm(&mut self) {
        self.send = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(send) = self.send.take() {
            send();
        }
    }
}

impl fmt::Debug for CancelOnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelOnDrop")
            .field(&self.is_armed())
            .finish()
    }
}
