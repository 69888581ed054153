//! A stand-in for the crate's `protocol`.

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
