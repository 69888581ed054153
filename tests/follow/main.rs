//! Tests the following layer against servers of many conventions: this crate's own, and others
//! written by hand from published specifications.

mod stream_script;
mod support;

mod azure;
mod bare_location;
mod cancel;
mod command;
mod connections;
mod default_dialect;
mod dialects;
mod event_updates;
mod failures;
mod fhir;
mod odata;
mod origins;
mod pace;
mod resuming;
mod service;
mod stream_ends;
mod streaming;
mod updates;
