//! A stand-in for the crate's `job`.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner(pub u8);
