//! A model of `tokio`.

pub mod sync;
pub mod time;
