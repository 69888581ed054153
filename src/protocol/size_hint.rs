//! The size of a body in memory.

use http_body::SizeHint;

/// Returns the size hint of a body in memory.
///
/// HTTP/1 frames a body by its length if that is known, and then has no room for trailers.
pub(crate) fn buffered_size_hint(bytes: u64, has_trailers: bool) -> SizeHint {
    let mut hint = SizeHint::default();
    hint.set_lower(bytes);
    if !has_trailers {
        hint.set_upper(bytes);
    }
    hint
}
