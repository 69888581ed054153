//! The state that all clones of a store share: the connection, claims and subscribers.

use std::sync::Arc;

use super::{
    claim::ActiveClaims, depth::StreamDepth, jetstream::JetStream, subscribers::Subscribers,
};

/// The state of this process beside the connection.
pub(super) struct ProcessState {
    pub(super) jetstream: JetStream,
    pub(super) claims: Arc<ActiveClaims>,
    pub(super) subscribers: Subscribers,
    pub(super) queue_depth: StreamDepth,
    pub(super) key_depth: StreamDepth,
}

impl ProcessState {
    pub(super) fn new(jetstream: JetStream) -> Self {
        Self {
            jetstream,
            claims: Arc::default(),
            subscribers: Subscribers::default(),
            queue_depth: StreamDepth::default(),
            key_depth: StreamDepth::default(),
        }
    }
}
