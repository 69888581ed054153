//! Tests webhooks through the public API.

mod host_rules;
