//! The ways of a call's output besides the store.

use super::relay::RelayWriter;
use crate::limit::PaceLimit;

/// The ways of a call's output besides the store.
#[derive(Default)]
pub(crate) struct Outlets {
    /// The way to the client that submitted the request, if it waits.
    pub(crate) relay: Option<RelayWriter>,
    /// The limit on how far the output may be ahead of its readers, if there is one.
    pub(crate) pace: Option<PaceLimit>,
}
