use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// Whom a job belongs to.
///
/// Made from whatever names a principal to the application: a user's id, a tenant, an API key's. Only
/// its SHA-256 is kept, cut to 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owner(Digest);

impl Owner {
    /// The owner of this name. Equal names are the same owner.
    pub fn new(name: impl AsRef<[u8]>) -> Self {
        Self(Digest::of([name.as_ref()]))
    }

    pub(crate) fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({})", self.0)
    }
}
