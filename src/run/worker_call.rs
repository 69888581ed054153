//! Marks the requests that a worker runs.

use std::sync::Arc;

use crate::registry::Registry;

/// The mark, in its extensions, of a request that a worker of a registry runs.
///
/// The worker's service may have a layer of that registry. There the request would become a second
/// job, or join its own by its key. So the layer lets it through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkerCall {
    /// The address of the registry, which the worker keeps alive.
    registry: usize,
}

impl WorkerCall {
    pub(crate) fn of<St>(registry: &Arc<Registry<St>>) -> Self {
        Self {
            registry: Arc::as_ptr(registry).addr(),
        }
    }
}
