//! The condition of a cancel or a delete on the revision of its job.

/// The revisions of a job at which a [`cancel`](super::Store::cancel) or a
/// [`forget`](super::Store::forget) takes effect.
///
/// They come from the `If-Match` and `If-None-Match` of a request (RFC 9110 §13.1). A database
/// reads the revision, checks it with [`contains`](Self::contains), and changes the job only if it
/// still has that revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Revisions {
    /// Any revision.
    #[default]
    Any,
    /// The listed revisions. If the list is empty, no revision.
    OneOf(Vec<u64>),
    /// All revisions except for the listed ones.
    Except(Vec<u64>),
}

impl Revisions {
    /// Returns `true` if a job of this revision may be changed.
    pub fn contains(&self, revision: u64) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(listed) => listed.contains(&revision),
            Self::Except(listed) => !listed.contains(&revision),
        }
    }
}
