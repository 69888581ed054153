//! Rules that depend on the status code of a response.

use http::StatusCode;

/// Returns `true` if a response with this status may have a `Content-Length` (RFC 9110 §8.6).
pub(crate) fn has_length(status: StatusCode) -> bool {
    !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
}
