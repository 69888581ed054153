//! Limits how far a call produces ahead of the readers of its output.

/// Limits how far a call produces ahead of its fastest reader.
///
/// Readers are the clients in this process that get the response while it is produced: the
/// submitter, repeats that join, and clients of `/jobs/{id}/stream`. Calls that a worker runs are
/// not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Backpressure {
    /// Reads the response at the speed of the service. The result limit and the budget bound it.
    #[default]
    Off,
    /// Reads at most this many bytes ahead of the fastest reader, and one frame more.
    ///
    /// If no reader makes progress for 10 s, the call goes on without them. So a client that has
    /// disconnected does not stop the call.
    Ahead(u64),
}
