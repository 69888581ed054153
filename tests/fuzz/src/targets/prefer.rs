//! `Prefer`: lines of the field.

use std::time::Duration;

use super::input::{split_outside_quotes, values};
use crate::protocol::{PREFER, Prefer};

const MAX_WAIT: Duration = Duration::from_secs(50);

/// Checks that `Prefer` means what a simple reading says, and that `Preference-Applied` names it.
pub fn prefer(input: &[u8]) {
    let headers = values(&PREFER, input);
    let prefer = Prefer::from_headers(&headers, MAX_WAIT);
    let lines = headers.get_all(PREFER).iter();
    assert_eq!(prefer, expected(lines.map(|line| line.as_bytes())));

    let applied = prefer.applied(true);
    let again = applied.map_or_else(Prefer::default, |applied| {
        Prefer::from_headers(&values(&PREFER, applied.as_bytes()), Duration::MAX)
    });
    assert_eq!(again, prefer);
}

fn expected<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Prefer {
    let preferences: Vec<(String, String)> = lines
        .flat_map(|line| split_outside_quotes(line, b','))
        .map(|preference| {
            // Bytes beyond ASCII are in no preference that counts.
            let first = split_outside_quotes(&preference, b';').swap_remove(0);
            let first: String = first.iter().map(|&byte| char::from(byte)).collect();
            let (name, value) = first.split_once('=').unwrap_or((&first, ""));
            let trim = |text: &str| {
                text.trim_matches(|c: char| c.is_ascii_whitespace())
                    .to_owned()
            };
            let mut value = trim(value);
            if value.len() > 1 && value.starts_with('"') && value.ends_with('"') {
                value = value[1..value.len() - 1].to_owned();
            }
            (trim(name).to_ascii_lowercase(), value)
        })
        .collect();
    let is_async = |(name, value): &(String, String)| name == "respond-async" && value.is_empty();
    let wait = preferences.iter().find(|(name, _)| name == "wait");
    let wait = wait.map(|(_, value)| value.as_str());
    let wait = wait.filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    Prefer {
        respond_async: preferences.iter().any(is_async),
        wait: wait.map(|digits| {
            let seconds: u128 = digits.parse().unwrap_or(u128::MAX);
            MAX_WAIT.min(Duration::from_secs(seconds.try_into().unwrap_or(u64::MAX)))
        }),
        // The layer sets it.
        callback: None,
    }
}
