//! A value that is reached through `&mut` alone.

use std::sync::{Mutex, PoisonError};

/// A value that is reached through `&mut` alone, so that sharing it is safe.
///
/// A body whose futures are not `Sync` is `Sync` nevertheless, as boxed bodies must be. The mutex
/// is never locked.
pub(super) struct Exclusive<T>(Mutex<T>);

impl<T> Exclusive<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
