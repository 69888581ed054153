//! Rules that depend on the status code of a response.

use http::StatusCode;

/// Returns `true` if a status below 400 means something else in the response to a GET.
///
/// A client would poll on after a 202, and take a 206 for a part of the result. It would repeat the
/// GET elsewhere after a 307 or 308, and look for a cached copy after a 304.
pub(crate) fn is_misleading_for_get(status: StatusCode) -> bool {
    matches!(status.as_u16(), 202 | 206 | 304 | 307 | 308)
}

/// Returns `true` if a response with this status may have content (RFC 9110 §6.4.1).
pub(crate) fn has_content(status: StatusCode) -> bool {
    has_length(status) && status != StatusCode::RESET_CONTENT
}

/// Returns `true` if a response with this status may have a `Content-Length` (RFC 9110 §8.6).
pub(crate) fn has_length(status: StatusCode) -> bool {
    !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
}
