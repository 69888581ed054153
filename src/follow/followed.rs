//! The extensions that the layer adds to responses.

use http::Uri;

/// Describes how the layer obtained a response.
///
/// It is in the extensions of each response that a 202 was followed to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Followed {
    /// The URI that returned the response.
    pub uri: Uri,
    /// The URI of the job's status monitor.
    pub monitor: Uri,
    /// The number of polls, including the request that returned the response.
    pub polls: u32,
}

/// The reason why a 202 was returned unchanged.
///
/// It is in the extensions of that 202. The server has accepted the request, but its result is
/// unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotFollowed {
    /// The 202 names no monitor.
    NoMonitor,
    /// The 202 names a monitor on an origin that is not allowed, or over `http` after `https`. The
    /// layer has not contacted it.
    OtherOrigin(Uri),
    /// Only `Location` names this URI, and no response from it looked like one of a monitor.
    NotAMonitor(Uri),
}
