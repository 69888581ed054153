//! Splits header values that are lists (RFC 9110 §5.6.1).

/// Returns the trimmed parts between separators, ignoring separators inside quoted strings.
pub(crate) fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |&byte| {
        if escaped {
            escaped = false;
            return false;
        }
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => escaped = true,
            _ => return byte == separator && !quoted,
        }
        false
    })
    .map(<[u8]>::trim_ascii)
}
