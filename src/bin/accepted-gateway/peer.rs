//! The client's address, as a request extension.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The IP address of the client's end of the connection, as a request extension.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Peer(pub(crate) IpAddr);
