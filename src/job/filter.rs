use std::{error, fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::owner::Owner;
use crate::job::{JobId, Snapshot, Status};

/// The most jobs that a page can have.
const MAX_LIMIT: usize = 1_000;

/// Which jobs to list: [`Jobs::list`](crate::Jobs::list).
///
/// The default is every job, a hundred a page.
#[derive(Debug, Clone)]
#[must_use = "a filter does nothing until it is given to `Jobs::list`"]
pub struct Filter {
    pub(crate) owner: Option<Owner>,
    pub(crate) status: Option<Status>,
    pub(crate) limit: usize,
    pub(crate) after: Option<Cursor>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            owner: None,
            status: None,
            limit: 100,
            after: None,
        }
    }
}

impl Filter {
    /// Every job.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only jobs of this owner. Default: of all, and of none.
    pub fn owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Only jobs of this status. Default: of all.
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// How many jobs a page has at most, from 1 to 1,000. Default: 100.
    pub fn limit(mut self, jobs: usize) -> Self {
        self.limit = jobs.clamp(1, MAX_LIMIT);
        self
    }

    /// Goes on behind a page that was had before.
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Whether a job is one of those asked for, on whichever page.
    pub(crate) fn admits(&self, job: &Snapshot) -> bool {
        self.status.is_none_or(|status| job.status == status)
            && self.owner.is_none_or(|owner| job.owner == Some(owner))
    }
}

/// Some jobs, the newest first.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Snapshot>,
    /// Where to go on, if there are more.
    pub next: Option<Cursor>,
}

/// A place in the list of jobs. It stays right while jobs come and go.
///
/// Its text form is for clients: short, and safe in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// When the job before this place was made, in milliseconds since the epoch of Unix.
    pub(crate) created_at: u64,
    pub(crate) id: JobId,
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
    /// Any text that no [`Page`] has given out.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (created_at, id) = text.split_at_checked(11).ok_or(ParseCursorError(()))?;
        let created_at = URL_SAFE_NO_PAD.decode(created_at).ok();
        let created_at = created_at.and_then(|bytes| bytes.try_into().ok());
        match (created_at, id.parse()) {
            (Some(created_at), Ok(id)) => Ok(Self {
                created_at: u64::from_be_bytes(created_at),
                id,
            }),
            _ => Err(ParseCursorError(())),
        }
    }
}

/// A text that is no [`Cursor`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseCursorError(());

impl fmt::Display for ParseCursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a cursor that a page has given out")
    }
}

impl error::Error for ParseCursorError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_from_its_text_and_nothing_else_is() {
        let created_at = 1_795_000_000_120;
        let cursor = Cursor {
            created_at,
            id: JobId::random(),
        };
        let text = cursor.to_string();
        assert_eq!(text.parse(), Ok(cursor));
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
