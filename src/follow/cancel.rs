use std::{fmt, time::Duration};

use http::Request;
use tokio::{runtime::Handle, time::timeout};
use tower::{Service, ServiceExt};

use super::{carried::Carried, origin::Target};

/// Sends the wish to cancel when dropped, unless it was disarmed before.
#[derive(Default)]
pub(super) struct CancelOnDrop {
    send: Option<Box<dyn FnOnce() + Send>>,
}

impl CancelOnDrop {
    /// From now on, a drop cancels the job at `target`. The wish is given up after `limit`.
    pub(super) fn arm<S, B>(
        &mut self,
        service: &S,
        carried: &Carried,
        target: &Target,
        limit: Duration,
    ) where
        S: Service<Request<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Response: Send,
        S::Error: Send,
        B: Default + Send + 'static,
    {
        let service = service.clone();
        let request = carried.cancel(target);
        self.send = Some(Box::new(move || {
            let Ok(runtime) = Handle::try_current() else {
                return;
            };
            runtime.spawn(async move {
                match timeout(limit, service.oneshot(request)).await {
                    Ok(Ok(_)) => tracing::debug!("a job that nobody waits for was canceled"),
                    _ => tracing::debug!("a job that nobody waits for could not be canceled"),
                }
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
