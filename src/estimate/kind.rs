//! The kind of a request: a name with a handle to what is known about it.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use triomphe::ThinArc;

use super::profile::Profile;

/// The kind of a request: requests of one kind are expected to take about as long.
///
/// By default it is the method and the path without its variable segments, such as
/// `POST /reports/{}`; [`AcceptedLayer::kind`](crate::AcceptedLayer::kind) replaces that.
// A name with a handle to its profile, so that a request looks it up once. The kind of a request
// that came before the profile has a name of its own; it is one allocation.
#[derive(Clone)]
pub struct Kind(ThinArc<Option<Box<Profile>>, u8>);

const MAX_NAME_BYTES: usize = 256;

impl Kind {
    /// Creates the kind of this name. A name over 256 bytes is truncated.
    pub fn new(name: &str) -> Self {
        let mut end = name.len().min(MAX_NAME_BYTES);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        Self::from_parts(&name[..end], None)
    }

    /// Creates the same kind with an empty profile.
    pub(super) fn with_profile(&self) -> Self {
        Self::from_parts(self.as_str(), Some(Box::default()))
    }

    fn from_parts(name: &str, profile: Option<Box<Profile>>) -> Self {
        Self(ThinArc::from_header_and_slice(profile, name.as_bytes()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0.slice).unwrap_or_default()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0.slice
    }

    /// Returns the profile, if the kind had one when this handle was made.
    pub(super) fn profile(&self) -> Option<&Profile> {
        self.0.header.header.as_deref()
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Kind {}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kind").field(&self.as_str()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn name_is_truncated_at_a_character(name: String) {
            let kind = Kind::new(&name);
            prop_assert!(name.starts_with(kind.as_str()));
            prop_assert!(kind.as_str().len() <= MAX_NAME_BYTES);
        }
    }
}
