//! The path and query of a request, for the time after its call has started.

use http::Uri;

/// The maximum length of a target that is kept whole, in bytes.
///
/// References in a result are resolved against it, so this bounds how much longer they get.
const MAX_TARGET_BYTES: usize = 1024;

/// The maximum length of a target that takes no allocation, in bytes.
const MAX_SHORT_BYTES: usize = 119;

/// The path and query of a request.
///
/// A call that starts inline keeps them in case the call becomes a job. They are a copy, since a
/// `Uri` keeps the connection's read buffer alive.
pub(super) enum RequestTarget {
    Short(ShortText),
    Long(Box<str>),
    /// The beginning of a target that is too long to keep.
    Start(ShortText),
}

/// A text of at most [`MAX_SHORT_BYTES`].
#[derive(Clone, Copy)]
pub(super) struct ShortText {
    bytes: [u8; MAX_SHORT_BYTES],
    length: u8,
}

impl RequestTarget {
    pub(super) fn new(uri: &Uri) -> Self {
        let target = path_and_query(uri);
        if target.len() <= MAX_SHORT_BYTES {
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
    pub(super) fn whole(&self) -> Option<Box<str>> {
        match self {
            Self::Short(text) => Some(text.as_str().into()),
            Self::Long(text) => Some(text.clone()),
            Self::Start(_) => None,
        }
    }
}

impl ShortText {
    /// Copies a text, or its beginning.
    fn new(text: &str) -> Self {
        let mut end = text.len().min(MAX_SHORT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = [0; MAX_SHORT_BYTES];
        bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        let length = end as u8;
        Self { bytes, length }
    }

    fn as_str(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.length)];
        str::from_utf8(bytes).unwrap_or_default()
    }
}

/// Returns path and query of a request that has not started, unless they are too long to keep.
pub(super) fn whole_target(uri: &Uri) -> Option<Box<str>> {
    let target = path_and_query(uri);
    (target.len() <= MAX_TARGET_BYTES).then(|| target.into())
}

fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("", |target| target.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_kept_whole_up_to_its_limit() {
        for length in [3, 118, 119, 120, 1024, 1025, 60_000] {
            let path = format!("/{}", "a".repeat(length - 3));
            let text = format!("{path}?b");
            let uri: Uri = text.parse().expect("a URI");
            let target = RequestTarget::new(&uri);
            let whole = (text.len() <= MAX_TARGET_BYTES).then_some(&*text);
            assert_eq!(target.whole().as_deref(), whole);
            assert_eq!(whole_target(&uri).as_deref(), whole);
            let start = &path[..path.len().min(MAX_SHORT_BYTES)];
            assert!(target.path().starts_with(start) && path.starts_with(target.path()));
        }
    }

    #[test]
    fn text_is_truncated_between_characters() {
        let text = ShortText::new(&"ä".repeat(MAX_SHORT_BYTES));
        assert_eq!(text.as_str(), "ä".repeat(MAX_SHORT_BYTES / 2));
    }
}
