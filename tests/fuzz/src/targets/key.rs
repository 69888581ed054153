//! `Idempotency-Key`: lines of the field.

use super::input::values;
use crate::{
    job::{InvalidKey, Key, Owner},
    protocol::IDEMPOTENCY_KEY,
};

const MAX_KEY_BYTES: usize = 255;

/// Checks that a key means what a simple reading says, and that any text can be a key.
pub fn key(input: &[u8]) {
    let headers = values(&IDEMPOTENCY_KEY, input);
    let owner = Owner::new("me");
    let lines: Vec<_> = headers.get_all(IDEMPOTENCY_KEY).iter().collect();
    let expected = match lines[..] {
        [] => Ok(None),
        [line] => text(line.as_bytes()).map(Some).ok_or(InvalidKey),
        _ => Err(InvalidKey),
    };
    for owner in [None, Some(&owner)] {
        let expected = expected.as_ref().map(|text| {
            let text = text.as_ref();
            text.map(|text| Key::new(text, owner))
        });
        let key = Key::from_headers(&headers, owner);
        assert_eq!(key.as_ref(), expected.as_ref().map_err(|error| *error));
    }

    // Any printable text, quoted, is a key.
    let printable = input
        .iter()
        .copied()
        .filter(|byte| (b' '..=b'~').contains(byte));
    let text: Vec<u8> = printable.take(MAX_KEY_BYTES).collect();
    let mut quoted = vec![b'"'];
    for &byte in &text {
        if b"\"\\".contains(&byte) {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    let key = Key::from_headers(&values(&IDEMPOTENCY_KEY, &quoted), None);
    if text.is_empty() {
        assert_eq!(key, Err(InvalidKey));
    } else {
        assert_eq!(key, Ok(Some(Key::new(&text, None))));
    }
}

/// Returns the text of a key.
fn text(value: &[u8]) -> Option<Vec<u8>> {
    let value = value.trim_ascii();
    let value = str::from_utf8(value).ok()?;
    if !value.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        return None;
    }
    let text = match value.strip_prefix('"') {
        None => value.to_owned(),
        Some(quoted) => {
            // Escaped characters cannot end the string, so they become others first.
            let quoted = quoted.replace("\\\\", "\u{1}").replace("\\\"", "\u{2}");
            let (text, rest) = quoted.split_once('"')?;
            if text.contains('\\') || !(rest.is_empty() || rest.starts_with(';')) {
                return None;
            }
            text.replace('\u{1}', "\\").replace('\u{2}', "\"")
        }
    };
    (1..=MAX_KEY_BYTES)
        .contains(&text.len())
        .then(|| text.into_bytes())
}
