//! Reads `Retry-After`.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};
use httpdate::parse_http_date;

/// Returns the delay in `Retry-After`, which is a number of seconds or a date (RFC 9110 §10.2.3).
///
/// A date is compared with the response's `Date`, or with the local clock if it has none.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only overflow fails here.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let until = parse_http_date(text).ok()?;
    let now = headers
        .get(header::DATE)
        .and_then(|date| parse_http_date(date.to_str().ok()?).ok())
        .unwrap_or_else(SystemTime::now);
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use httpdate::fmt_http_date;
    use proptest::prelude::*;

    use super::*;

    const DATE: &str = "Mon, 23 Nov 2026 13:40:00 GMT";

    fn read(retry_after_: &str, date: Option<&str>) -> Option<Duration> {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).expect("a value");
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, value(retry_after_));
        if let Some(date) = date {
            headers.insert(header::DATE, value(date));
        }
        retry_after(&headers)
    }

    #[test]
    fn seconds_and_dates_parse() {
        for (text, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Mon, 23 Nov 2026 13:41:30 GMT", Some(90)),
            ("Monday, 23-Nov-26 13:40:05 GMT", Some(5)),
            ("Mon Nov 23 13:40:02 2026", Some(2)),
            // A date in the past means no delay.
            ("Fri, 31 Dec 1999 23:59:59 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("+3", None),
            ("soon", None),
            ("Mon, 32 Nov 2026 13:41:30 GMT", None),
        ] {
            let read = read(text, Some(DATE));
            assert_eq!(read, seconds.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn date_without_server_clock_uses_the_local_one() {
        let text = fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
        let read = read(&text, None).expect("a date");
        assert!(read > Duration::from_secs(3000) && read <= Duration::from_secs(3600));
    }

    proptest! {
        #[test]
        fn whole_seconds_round_trip(seconds: u32) {
            let expected = Duration::from_secs(seconds.into());
            prop_assert_eq!(read(&seconds.to_string(), None), Some(expected));
        }

        #[test]
        fn date_becomes_the_remaining_time(start in 0_u64..4_000_000_000, ahead: u32) {
            let start = SystemTime::UNIX_EPOCH + Duration::from_secs(start);
            let ahead = Duration::from_secs(ahead.into());
            let (date, until) = (fmt_http_date(start), fmt_http_date(start + ahead));
            prop_assert_eq!(read(&until, Some(&date)), Some(ahead));
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "[ -~]{0,40}") {
            read(&text, Some(&text));
        }
    }
}
