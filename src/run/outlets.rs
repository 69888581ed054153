//! Where the output of a call goes, besides the store.

use super::relay::RelayWriter;
use crate::limit::PaceLimit;

/// Where the output of a call goes, besides the store.
#[derive(Default)]
pub(crate) struct Outlets {
    /// To the client that submitted the request, if it waits.
    pub(crate) relay: Option<RelayWriter>,
    /// How far it may be ahead of its readers, if there is a limit.
    pub(crate) pace: Option<PaceLimit>,
}
