//! A position in a list of jobs.

use std::{
    error, fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{id::JobId, snapshot::Snapshot};

/// A position in a list of jobs, which stays valid while jobs come and go.
///
/// Cursors are ordered by the time at which their jobs were created, then by id. Their text is for
/// clients: short, and safe in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The creation time of the job at this position, in milliseconds since the Unix epoch.
    created_at: u64,
    id: JobId,
}

impl Cursor {
    /// Creates the position of the job `id`, which was created at `created_at`.
    ///
    /// The time is kept to the millisecond.
    pub fn new(created_at: SystemTime, id: JobId) -> Self {
        let since = created_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_unix_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), id)
    }

    /// Creates the position of the job `id` from milliseconds since the Unix epoch.
    pub fn from_unix_millis(created_at: u64, id: JobId) -> Self {
        Self { created_at, id }
    }

    /// Returns the id of the job at this position.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Returns the creation time of the job at this position, in milliseconds since the Unix epoch.
    pub fn unix_millis(&self) -> u64 {
        self.created_at
    }

    /// Returns the creation time of the job at this position.
    pub fn created_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.created_at)
    }
}

impl From<&Snapshot> for Cursor {
    fn from(job: &Snapshot) -> Self {
        Self::new(job.created_at, job.id)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let created_at = URL_SAFE_NO_PAD.encode(self.created_at.to_be_bytes());
        write!(f, "{created_at}{}", self.id)
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    /// # Errors
    ///
    /// Fails for any text that [`Display`](fmt::Display) does not write.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (created_at, id) = text.split_at_checked(11).ok_or(ParseCursorError(()))?;
        let created_at = URL_SAFE_NO_PAD.decode(created_at).ok();
        let created_at = created_at.and_then(|bytes| bytes.try_into().ok());
        match (created_at, id.parse()) {
            (Some(created_at), Ok(id)) => {
                Ok(Self::from_unix_millis(u64::from_be_bytes(created_at), id))
            }
            _ => Err(ParseCursorError(())),
        }
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The error of parsing a [`Cursor`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseCursorError(());

impl fmt::Display for ParseCursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid cursor")
    }
}

impl error::Error for ParseCursorError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_round_trips_through_its_only_text() {
        let cursor = Cursor::from_unix_millis(1_795_000_000_120, JobId::random());
        let text = cursor.to_string();
        assert_eq!(text.parse(), Ok(cursor));
        assert_eq!(Cursor::new(cursor.created_at(), cursor.id()), cursor);
        let json = serde_json::to_string(&cursor).expect("text");
        assert_eq!(serde_json::from_str::<Cursor>(&json).expect("text"), cursor);
        for text in [
            "",
            "x",
            &text[1..],
            &format!("{text}A"),
            "é".repeat(17).as_str(),
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }
}
