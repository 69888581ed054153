//! Reads the parts of an input.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Splits an input at its first line break.
pub(super) fn line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|&byte| byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[]),
    }
}

/// Returns the lines of an input as the values of one field. Skips lines that cannot be values.
pub(super) fn values(name: &HeaderName, input: &[u8]) -> HeaderMap {
    let values = input.split(|&byte| byte == b'\n');
    let mut headers = HeaderMap::new();
    for value in values.filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(name, value);
    }
    headers
}

/// Reads fields such as `name: value`, up to an empty line. Returns them and the rest.
///
/// A value after `!` instead of `:` is sensitive. Skips lines that are not fields.
pub(super) fn fields(mut input: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    while !input.is_empty() {
        let (field, rest) = line(input);
        input = rest;
        if field.is_empty() {
            break;
        }
        let Some(at) = field.iter().position(|byte| b":!".contains(byte)) else {
            continue;
        };
        let name = HeaderName::from_bytes(&field[..at]);
        let value = HeaderValue::from_bytes(field[at + 1..].trim_ascii());
        if let (Ok(name), Ok(mut value)) = (name, value) {
            value.set_sensitive(field[at] == b'!');
            headers.append(name, value);
        }
    }
    (headers, input)
}

/// Splits a text at the separators outside its quoted strings, and trims the parts.
pub(super) fn split_outside_quotes(text: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let (mut parts, mut in_quotes, mut after_backslash) = (vec![Vec::new()], false, false);
    for &byte in text {
        if byte == separator && !in_quotes {
            parts.push(Vec::new());
            continue;
        }
        if byte == b'"' && !after_backslash {
            in_quotes = !in_quotes;
        }
        after_backslash = in_quotes && byte == b'\\' && !after_backslash;
        parts.last_mut().expect("never empty").push(byte);
    }
    parts
        .iter()
        .map(|part| part.trim_ascii().to_vec())
        .collect()
}
