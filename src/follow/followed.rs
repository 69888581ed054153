use http::Uri;

/// How a response was come by: in its extensions, where a 202 was followed to it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Followed {
    /// Where the response is from.
    pub uri: Uri,
    /// The job's monitor.
    pub monitor: Uri,
    /// How many questions it took, the one for the response included.
    pub polls: u32,
}

/// Why a 202 was handed out as it is: in its extensions.
///
/// What it was the answer to has been accepted; how it ends is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotFollowed {
    /// It names no monitor.
    NoMonitor,
    /// Its monitor is there, on an origin that is not allowed, or by `http` after `https`. It has not
    /// been asked.
    OtherOrigin(Uri),
    /// It names this in `Location` alone, and nothing that came from there looked like a monitor's
    /// answer.
    NoMonitorThere(Uri),
}
