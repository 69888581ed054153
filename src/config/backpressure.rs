//! Limits how far a call produces ahead of the readers of its output.

/// Limits how far a call that runs in this process produces ahead of its fastest reader.
///
/// Readers are the submitter under [`When::Streamed`](crate::When::Streamed), and clients of
/// `/jobs/{id}/stream` at this process. Readers at other processes do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Backpressure {
    /// Reads the response at the speed of the service. The result limit and the budget bound it.
    #[default]
    Off,
    /// Reads at most so many bytes ahead of the fastest reader, and one frame more.
    ///
    /// If no reader makes progress for 10 s, the call goes on without them. So a client that has
    /// disconnected does not stop the call.
    Ahead(u64),
}
