//! The following layer as a caller sees it, in front of servers of many kinds: this crate's own, and
//! others written by hand from what their authors published.

mod support;

mod azure;
mod bare_location;
mod cancel;
mod command;
mod default_dialect;
mod dialects;
mod failures;
mod fhir;
mod odata;
mod origins;
mod pace;
mod service;
mod updates;
