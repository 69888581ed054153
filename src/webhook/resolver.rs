//! Resolves the names of receivers, and refuses those with forbidden addresses.

use std::{
    error, fmt,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

use super::address::is_forbidden;
use crate::protocol::BoxError;

/// Looks up the addresses of a name.
pub(crate) trait Resolver:
    Service<
        Name,
        Response: Iterator<Item = SocketAddr>,
        Error: Into<BoxError>,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<R> Resolver for R where
    R: Service<
            Name,
            Response: Iterator<Item = SocketAddr>,
            Error: Into<BoxError>,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// Returns the addresses of a name if none of them is forbidden.
///
/// The connection that asks for them uses these very addresses. So no later answer of the name
/// server counts.
#[derive(Debug, Clone)]
pub(super) struct CheckedResolver<R> {
    resolver: R,
    /// Allows forbidden addresses.
    is_internal: bool,
}

impl<R> CheckedResolver<R> {
    pub(super) fn new(resolver: R, is_internal: bool) -> Self {
        Self {
            resolver,
            is_internal,
        }
    }
}

impl<R: Resolver> Service<Name> for CheckedResolver<R> {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ResolveError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        self.resolver
            .poll_ready(cx)
            .map_err(|error| ResolveError::LookUp(error.into()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let is_internal = self.is_internal;
        let look_up = self.resolver.call(name);
        Box::pin(async move {
            let found = look_up.await;
            let addresses: Vec<_> = found
                .map_err(|error| ResolveError::LookUp(error.into()))?
                .collect();
            let is_refused = |address: &SocketAddr| is_forbidden(address.ip());
            if addresses.is_empty() {
                Err(ResolveError::NoAddress)
            } else if !is_internal && addresses.iter().any(is_refused) {
                Err(ResolveError::Forbidden)
            } else {
                Ok(addresses.into_iter())
            }
        })
    }
}

/// The reason why a name has no addresses to connect to. It does not have the addresses.
#[derive(Debug)]
pub(super) enum ResolveError {
    Forbidden,
    NoAddress,
    LookUp(BoxError),
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forbidden => "the name has a forbidden address",
            Self::NoAddress => "the name has no address",
            Self::LookUp(_) => "the look-up failed",
        })
    }
}

impl error::Error for ResolveError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::LookUp(error) => Some(&**error),
            Self::Forbidden | Self::NoAddress => None,
        }
    }
}
