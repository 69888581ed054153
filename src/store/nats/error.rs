use std::{error, fmt};

type Source = Box<dyn error::Error + Send + Sync>;

/// What can go wrong with jobs in JetStream.
#[derive(Debug)]
#[non_exhaustive]
pub enum NatsError {
    /// It does not answer, or answers that it cannot: without a majority of its replicas, say.
    Unavailable(Source),
    /// It is more than the servers take in one message.
    TooLarge,
    /// What is kept cannot be read: a newer version of this crate wrote it, or somebody else did.
    Unreadable {
        /// The subject that it is kept under.
        subject: String,
        /// What is wrong with it.
        source: Source,
    },
    /// There is a stream or a consumer of that name, and it is another than what the options ask for.
    Unfit {
        /// Its name.
        name: String,
        /// The setting that differs.
        setting: &'static str,
        /// What it is there.
        found: String,
        /// What the options ask for.
        wanted: String,
    },
}

impl NatsError {
    pub(super) fn unavailable(source: impl Into<Source>) -> Self {
        Self::Unavailable(source.into())
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
            Self::Unavailable(source) => write!(f, "JetStream is not available: {source}"),
            Self::TooLarge => f.write_str("more than JetStream takes in one message"),
            Self::Unreadable { subject, source } => {
                write!(f, "what is kept under {subject} cannot be read: {source}")
            }
            Self::Unfit {
                name,
                setting,
                found,
                wanted,
            } => write!(
                f,
                "{name} is there with {setting} {found}, and {wanted} is asked for: change it with \
                 `nats stream edit` or `nats consumer edit`, or the options"
            ),
        }
    }
}

impl error::Error for NatsError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Unavailable(source) | Self::Unreadable { source, .. } => Some(&**source),
            Self::TooLarge | Self::Unfit { .. } => None,
        }
    }
}
