//! Size hints of bodies that are in memory, in whole or in part.

use http_body::SizeHint;

/// Returns the size hint of a body in memory.
///
/// HTTP/1 frames a body by its length if that is known, and then has no room for trailers.
#[cfg(feature = "server")]
pub(crate) fn buffered_size_hint(bytes: u64, has_trailers: bool) -> SizeHint {
    let mut hint = SizeHint::default();
    hint.set_lower(bytes);
    if !has_trailers {
        hint.set_upper(bytes);
    }
    hint
}

/// Adds bytes that precede a body to its size hint.
#[inline]
pub(crate) fn prefixed_size_hint(mut rest: SizeHint, bytes: u64) -> SizeHint {
    if let Some(upper) = rest.upper() {
        rest.set_upper(upper.saturating_add(bytes));
    }
    rest.set_lower(rest.lower().saturating_add(bytes));
    rest
}
