//! The state that all clones of a store share: the connection, claims and subscribers.

use std::sync::Arc;

use super::{
    claim::ActiveClaims, depth::QueueDepth, jetstream::JetStream, subscribers::Subscribers,
};

/// The state of this process beside the connection.
pub(super) struct ProcessState {
    pub(super) jetstream: JetStream,
    pub(super) claims: Arc<ActiveClaims>,
    pub(super) subscribers: Subscribers,
    pub(super) depth: QueueDepth,
}

impl ProcessState {
    pub(super) fn new(jetstream: JetStream) -> Self {
        Self {
            jetstream,
            claims: Arc::default(),
            subscribers: Subscribers::default(),
            depth: QueueDepth::default(),
        }
    }
}
