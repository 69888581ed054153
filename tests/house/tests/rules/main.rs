//! Plants offences in small checkouts, and expects each rule to name them.

mod imports;
mod names;
mod shape;
mod support;
mod text;
mod threats;
