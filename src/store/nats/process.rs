//! The state that all clones of a store share: the connection, claims, subscribers and followers.

use std::sync::Arc;

use super::{
    claim::ActiveClaims, depth::StreamDepth, follower::Followers, jetstream::JetStream,
    subscribers::Subscribers,
};

/// The state of this process beside the connection.
pub(super) struct ProcessState {
    pub(super) jetstream: Arc<JetStream>,
    pub(super) claims: Arc<ActiveClaims>,
    pub(super) subscribers: Arc<Subscribers>,
    pub(super) followers: Arc<Followers>,
    pub(super) queue_depth: StreamDepth,
    pub(super) key_depth: StreamDepth,
}

impl ProcessState {
    pub(super) fn new(jetstream: JetStream) -> Self {
        Self {
            jetstream: Arc::new(jetstream),
            claims: Arc::default(),
            subscribers: Arc::default(),
            followers: Arc::default(),
            queue_depth: StreamDepth::default(),
            key_depth: StreamDepth::default(),
        }
    }
}
