//! Header fields that are lists (RFC 9110 §5.6.1).

use http::{HeaderMap, HeaderName, HeaderValue};

/// Appends an entry to a list, and joins its lines: some servers read only the first line.
pub(crate) fn append(headers: &mut HeaderMap, name: HeaderName, entry: &str) {
    let lines = headers.get_all(&name).iter().map(HeaderValue::as_bytes);
    let mut list: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
    list.push(entry.as_bytes());
    if let Ok(list) = HeaderValue::from_bytes(&list.join(&b", "[..])) {
        headers.insert(name, list);
    }
}

/// Returns `true` if a list has this entry, in upper or lower case.
pub(crate) fn contains(headers: &HeaderMap, name: &HeaderName, entry: &str) -> bool {
    let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut entries = lines.flat_map(|line| line.split(|&byte| byte == b','));
    entries.any(|one| one.trim_ascii().eq_ignore_ascii_case(entry.as_bytes()))
}
