//! The error of an invalid option.

use std::{error, fmt};

/// An option of a [`JobsBuilder`](crate::JobsBuilder) is invalid.
///
/// [`try_build`](crate::JobsBuilder::try_build) returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// This [`monitor_path`](crate::JobsBuilder::monitor_path) cannot be the start of a link.
    MonitorPath(String),
    /// This base of [`Links::Base`](crate::Links::Base) is not an absolute `http` or `https` URL
    /// that links can begin with.
    LinkBase(String),
    /// Webhooks have no secret to sign with.
    NoWebhookSecret,
    /// The store records no deliveries, so webhooks cannot be sent.
    NoOutbox,
    /// The system has no root certificates to verify receivers of webhooks, and the application has
    /// added none.
    NoRootCertificate,
    /// A [root certificate](crate::webhook::Webhooks::root_certificate) for webhooks is invalid,
    /// for this reason.
    InvalidRootCertificate(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MonitorPath(path) => write!(
                f,
                "invalid monitor path {path:?}: expected a path like /jobs, without a trailing \
                 slash, without empty, \".\" or \"..\" segments, and with only the characters of a \
                 URI's path"
            ),
            Self::LinkBase(base) => write!(
                f,
                "invalid base of links {base:?}: expected http(s)://HOST[:PORT][/PATH]"
            ),
            Self::NoWebhookSecret => f.write_str("webhooks have no secret"),
            Self::NoOutbox => f.write_str("the store cannot record webhooks"),
            Self::NoRootCertificate => {
                f.write_str("the system has no root certificates for webhooks")
            }
            Self::InvalidRootCertificate(reason) => {
                write!(f, "invalid root certificate for webhooks: {reason}")
            }
        }
    }
}

impl error::Error for ConfigError {}
