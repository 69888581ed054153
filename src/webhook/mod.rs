//! Callbacks: the server notifies a client's URL.

mod address;
mod address_policy;
mod client;
mod connection;
mod connector;
mod host_rule;
mod resolver;
mod send_error;
mod target_url;
#[cfg(test)]
mod tests;
mod tls;

pub use self::host_rule::{AllowedHosts, HostRule, ParseHostRuleError};
