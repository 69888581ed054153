//! Connects to the upstream, and waits if the process is out of file descriptors.

use std::{
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{net::TcpStream, time::sleep};
use tower::{BoxError, Service};

/// The timeout for a connection to the upstream.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause before the next attempt to open a socket.
const SOCKET_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Connects to the upstream.
///
/// The limits on calls and connections leave descriptors in reserve. A socket that is being closed
/// can still exceed them for a moment, and then the job must wait instead of fail.
#[derive(Debug, Clone)]
pub(crate) struct Connector(HttpConnector);

impl Connector {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        Self(connector)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, upstream: Uri) -> Self::Future {
        let mut connector = self.0.clone();
        Box::pin(async move {
            loop {
                match connector.call(upstream.clone()).await {
                    Err(error) if is_out_of_descriptors(&error) => {
                        tracing::warn!("out of file descriptors: a call to the upstream waits");
                        sleep(SOCKET_RETRY_DELAY).await;
                    }
                    connected => return connected.map_err(Into::into),
                }
            }
        })
    }
}

fn is_out_of_descriptors(error: &(dyn Error + 'static)) -> bool {
    let code = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error);
    code.is_some_and(is_limit) || error.source().is_some_and(is_out_of_descriptors)
}

/// Returns `true` for `EMFILE`, the limit of the process, and `ENFILE`, that of the system.
#[cfg(unix)]
fn is_limit(code: i32) -> bool {
    use rustix::io::Errno;

    [Errno::MFILE, Errno::NFILE]
        .map(Errno::raw_os_error)
        .contains(&code)
}

#[cfg(not(unix))]
fn is_limit(_: i32) -> bool {
    false
}
