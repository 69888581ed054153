//! The principal that a job belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// The principal that a job belongs to.
///
/// Create it from the application's name for the principal: a user's id, a tenant, the id of an API
/// key. Only the SHA-256 of the name is kept, truncated to 128 bits.
///
/// ```
/// use tower_accepted::{Jobs, Owner};
///
/// #[derive(Clone)]
/// struct User(String); // set by an authentication layer
///
/// let jobs = Jobs::builder()
///     .owner(|head| head.extensions.get::<User>().map(|user| Owner::new(&user.0)))
///     .build();
/// # let _ = jobs;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owner(Digest);

impl Owner {
    /// Creates the owner of this name. Equal names are the same owner.
    pub fn new(name: impl AsRef<[u8]>) -> Self {
        Self(Digest::new([name.as_ref()]))
    }

    /// Restores an owner from [`as_bytes`](Self::as_bytes).
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Digest::from_bytes(bytes))
    }

    /// Returns the digest of the owner's name.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Owner {
    /// Writes the digest in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({})", self.0)
    }
}
