//! The reasons why a webhook got no answer.

use std::{error, fmt};

use hyper_util::client::legacy::Error as ClientError;

use super::connector::ConnectFailure;

/// A webhook got no answer. It names the host, and never an address, a path or a query.
#[derive(Debug)]
pub(crate) struct SendError {
    host: Box<str>,
    failure: SendFailure,
    source: Option<ClientError>,
}

/// The kind of a [`SendError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendFailure {
    /// The host has an address that no webhook may reach.
    ForbiddenAddress,
    /// The name of the host has no address, or its look-up failed.
    Dns,
    /// No address of the host accepted a connection.
    Connect,
    /// The TLS handshake failed; for example, the certificate is invalid.
    Tls,
    /// The head of the answer did not arrive in time.
    TimedOut,
    /// The connection broke before the head of the answer, or the answer is not HTTP.
    Protocol,
}

impl SendError {
    pub(super) fn timed_out(host: &str) -> Self {
        Self {
            host: host.into(),
            failure: SendFailure::TimedOut,
            source: None,
        }
    }

    pub(super) fn new(host: &str, error: ClientError) -> Self {
        let connect = error::Error::source(&error).and_then(<dyn error::Error>::downcast_ref);
        let failure = match connect {
            Some(ConnectFailure::Forbidden) => SendFailure::ForbiddenAddress,
            Some(ConnectFailure::Dns(_)) => SendFailure::Dns,
            Some(ConnectFailure::Tcp(_)) => SendFailure::Connect,
            Some(ConnectFailure::Tls(_)) => SendFailure::Tls,
            Some(ConnectFailure::TimedOut) => SendFailure::TimedOut,
            None => SendFailure::Protocol,
        };
        Self {
            host: host.into(),
            failure,
            source: Some(error),
        }
    }

    /// Returns the kind of the error.
    pub(crate) fn failure(&self) -> SendFailure {
        self.failure
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        match self.failure {
            SendFailure::ForbiddenAddress => write!(f, "{host} has a forbidden address"),
            SendFailure::Dns => write!(f, "failed to resolve {host}"),
            SendFailure::Connect => write!(f, "failed to connect to {host}"),
            SendFailure::Tls => write!(f, "the TLS handshake with {host} failed"),
            SendFailure::TimedOut => write!(f, "{host} did not answer in time"),
            SendFailure::Protocol => write!(f, "{host} did not answer with HTTP"),
        }
    }
}

impl error::Error for SendError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}
