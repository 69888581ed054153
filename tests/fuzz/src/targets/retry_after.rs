//! `Retry-After`: a line of the field, then a line of `Date`.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, header};
use httpdate::{fmt_http_date, parse_http_date};

use super::input::line;
use crate::protocol::retry_after as parse;

/// The last second that a date in HTTP can name, in seconds since the Unix epoch.
const LAST_SECOND: u64 = 253_402_300_799;

/// Checks that seconds and dates are read to the second, and that nothing else is a delay.
pub fn retry_after(input: &[u8]) {
    let (delay, rest) = line(input);
    let (date, _) = line(rest);
    let mut headers = HeaderMap::new();
    for (name, value) in [(header::RETRY_AFTER, delay), (header::DATE, date)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    let field = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let delay = field(header::RETRY_AFTER).map(str::trim);
    let found = parse(&headers);
    match delay {
        Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            let seconds: u128 = text.parse().unwrap_or(u128::MAX);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            assert_eq!(found, Some(Duration::from_secs(seconds)));
        }
        Some(text) => assert_eq!(found.is_some(), parse_http_date(text).is_ok(), "{text}"),
        None => assert_eq!(found, None),
    }

    // A date and the delay until then are the same.
    let date = field(header::DATE).and_then(|text| parse_http_date(text).ok());
    if let (Some(date), Some(found)) = (date, found)
        && let Some(until) = date.checked_add(found)
        && until
            .duration_since(SystemTime::UNIX_EPOCH)
            .is_ok_and(|at| at.as_secs() <= LAST_SECOND)
    {
        let until = HeaderValue::try_from(fmt_http_date(until)).expect("a date");
        headers.insert(header::RETRY_AFTER, until);
        assert_eq!(parse(&headers), Some(found));
    }
}
