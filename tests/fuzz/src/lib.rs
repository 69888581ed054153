//! Fuzz targets for the parsers of the crate.
//!
//! `build.rs` copies the crate's modules into this package, so that the targets reach private
//! parsers. Each target states a property of any input, not only that nothing panics. The test
//! `corpora` runs them on stable; `cargo fuzz` runs them with coverage feedback.

#![allow(
    dead_code,
    private_interfaces,
    unused_imports,
    reason = "the targets use a part of the copied modules"
)]

pub mod mutator;
pub mod targets;

include!(concat!(env!("OUT_DIR"), "/source/lib.rs"));
