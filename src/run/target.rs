//! The path and query of a request, for the time after its call has started.

use http::Uri;

/// The maximum length of a target that is kept whole, in bytes.
///
/// References in a result are resolved against it, so this bounds how much longer they get.
const MAX_TARGET_BYTES: usize = 1024;

/// The length of a target that a job keeps without an allocation, in bytes.
const JOB_BYTES: usize = 22;

/// The length of a target that an inline call keeps without an allocation, in bytes.
const INLINE_BYTES: usize = 119;

/// The target of a job's request.
pub(super) type JobTarget = RequestTarget<JOB_BYTES>;

/// The target of a call that starts inline, and may yet become a job.
pub(super) type InlineTarget = RequestTarget<INLINE_BYTES>;

/// The path and query of a request. Up to `SHORT` bytes take no allocation.
///
/// They are a copy, since a `Uri` keeps the connection's read buffer alive.
pub(super) enum RequestTarget<const SHORT: usize> {
    Short(ShortText<SHORT>),
    Long(Box<str>),
    /// The beginning of a target that is too long to keep.
    Start(ShortText<SHORT>),
}

/// A text of at most `MAX` bytes.
pub(super) struct ShortText<const MAX: usize> {
    bytes: [u8; MAX],
    length: u8,
}

impl<const SHORT: usize> RequestTarget<SHORT> {
    pub(super) fn new(uri: &Uri) -> Self {
        let target = uri.path_and_query();
        Self::from_text(target.map_or("", |target| target.as_str()))
    }

    fn from_text(target: &str) -> Self {
        if target.len() <= SHORT {
            Self::Short(ShortText::new(target))
        } else if target.len() <= MAX_TARGET_BYTES {
            Self::Long(target.into())
        } else {
            Self::Start(ShortText::new(target))
        }
    }

    /// Returns the path, or its beginning.
    pub(super) fn path(&self) -> &str {
        let target = match self {
            Self::Short(text) | Self::Start(text) => text.as_str(),
            Self::Long(text) => text,
        };
        target.split('?').next().unwrap_or_default()
    }

    /// Returns path and query, unless they are too long to keep.
    pub(super) fn whole(&self) -> Option<&str> {
        match self {
            Self::Short(text) => Some(text.as_str()),
            Self::Long(text) => Some(text),
            Self::Start(_) => None,
        }
    }

    /// Returns the target as a job keeps it.
    pub(super) fn to_job(&self) -> JobTarget {
        match self.whole() {
            Some(target) => JobTarget::from_text(target),
            None => JobTarget::unknown(),
        }
    }

    /// Returns the target of a request that is not known.
    pub(super) fn unknown() -> Self {
        Self::Start(ShortText::new(""))
    }
}

impl<const MAX: usize> ShortText<MAX> {
    /// Copies a text, or its beginning.
    fn new(text: &str) -> Self {
        let mut end = text.len().min(MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = [0; MAX];
        bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        let length = end as u8;
        Self { bytes, length }
    }

    fn as_str(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.length)];
        str::from_utf8(bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_kept_whole_up_to_its_limit() {
        for length in [3, 22, 23, 119, 120, 1024, 1025, 60_000] {
            let path = format!("/{}", "a".repeat(length - 3));
            let text = format!("{path}?b");
            let uri: Uri = text.parse().expect("a URI");
            let target = InlineTarget::new(&uri);
            let whole = (text.len() <= MAX_TARGET_BYTES).then_some(&*text);
            assert_eq!(target.whole(), whole);
            assert_eq!(target.to_job().whole(), whole);
            assert_eq!(JobTarget::new(&uri).whole(), whole);
            let start = &path[..path.len().min(INLINE_BYTES)];
            assert!(target.path().starts_with(start) && path.starts_with(target.path()));
        }
    }

    #[test]
    fn job_has_little_room_for_its_target() {
        assert!(size_of::<JobTarget>() <= 24);
    }

    #[test]
    fn text_is_truncated_between_characters() {
        let text = ShortText::<21>::new(&"ä".repeat(21));
        assert_eq!(text.as_str(), "ä".repeat(10));
    }
}
