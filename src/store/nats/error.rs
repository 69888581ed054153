//! The error type of the store.

use std::{error, fmt};

pub(super) type Source = Box<dyn error::Error + Send + Sync>;

/// An error of [`NatsStore`](super::NatsStore).
#[derive(Debug)]
#[non_exhaustive]
pub enum NatsError {
    /// JetStream did not answer, or answered that it cannot serve the request, for example because
    /// a majority of the replicas is down.
    Unavailable(Source),
    /// The data exceeds the servers' `max_payload`.
    TooLarge,
    /// A message cannot be decoded: a newer version of this crate or another program wrote it.
    Unreadable {
        /// The subject of the message.
        subject: String,
        /// The cause.
        source: Source,
    },
    /// This [prefix](super::NatsOptions::prefix) cannot be part of a stream's name.
    InvalidPrefix(String),
    /// A stream or consumer of this name exists with other settings than the options ask for.
    ConfigMismatch {
        /// The name of the stream or consumer.
        name: String,
        /// The setting that differs.
        setting: &'static str,
        /// The value on the server.
        found: String,
        /// The value from the options.
        wanted: String,
    },
}

impl NatsError {
    pub(super) fn unavailable(source: impl Into<Source>) -> Self {
        Self::Unavailable(source.into())
    }

    pub(super) fn no_budget() -> Self {
        Self::unavailable("no memory budget for a result")
    }

    pub(super) fn unreadable(subject: &str, source: impl Into<Source>) -> Self {
        Self::Unreadable {
            subject: subject.to_owned(),
            source: source.into(),
        }
    }
}

impl fmt::Display for NatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(source) => write!(f, "JetStream is unavailable: {source}"),
            Self::TooLarge => f.write_str("the message exceeds the servers' max_payload"),
            Self::Unreadable { subject, source } => {
                write!(f, "failed to decode the message at {subject}: {source}")
            }
            Self::InvalidPrefix(prefix) => write!(
                f,
                "invalid prefix of stream names {prefix:?}: expected ASCII letters, digits, - and _"
            ),
            Self::ConfigMismatch {
                name,
                setting,
                found,
                wanted,
            } => write!(
                f,
                "{name} has {setting} {found}, but the options ask for {wanted}: change it with \
                 `nats stream edit` or `nats consumer edit`, or change the options"
            ),
        }
    }
}

impl error::Error for NatsError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Unavailable(source) | Self::Unreadable { source, .. } => Some(&**source),
            Self::TooLarge | Self::InvalidPrefix(_) | Self::ConfigMismatch { .. } => None,
        }
    }
}
