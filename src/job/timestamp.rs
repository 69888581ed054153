//! Writes times in the format of the status document.

use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};

const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(0));

/// A text such as `2026-11-24T13:40:01`.
type SecondText = [u8; 19];

/// The number of written seconds that a thread caches. Clients mostly read jobs of the last minute,
/// and a document has up to four times.
const CACHED_SECONDS: u64 = 127;

thread_local! {
    /// The seconds written last, each at the remainder of its number. Only [`write()`] borrows
    /// this, and it calls nothing that calls it again.
    static CACHE: RefCell<[(u64, SecondText); CACHED_SECONDS as usize]> =
        const { RefCell::new([(u64::MAX, [0; 19]); CACHED_SECONDS as usize]) };
}

/// Writes a time as in RFC 3339, in UTC and to the millisecond.
///
/// Computing a date takes a third of a document's time. Most documents only have seconds that are
/// in the cache.
pub(crate) fn write(to: &mut Vec<u8>, at: SystemTime) {
    // No job is older than the Unix epoch.
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = since.as_secs();
    CACHE.with_borrow_mut(|cache| {
        let (number, text) = &mut cache[(second % CACHED_SECONDS) as usize];
        if *number != second {
            (*number, *text) = (second, write_second(second));
        }
        to.extend_from_slice(text);
    });
    let digit = |of: u32| b'0' + (since.subsec_millis() / of % 10) as u8;
    to.extend_from_slice(&[b'.', digit(100), digit(10), digit(1), b'Z']);
}

fn write_second(second: u64) -> SecondText {
    // The expiry of a job with an endless retention becomes the last time of the calendar.
    let time = i64::try_from(second).ok();
    let time = time.and_then(|second| Timestamp::from_second(second).ok());
    let text = PRINTER.timestamp_to_string(&time.unwrap_or(Timestamp::MAX));
    let mut second = SecondText::default();
    let length = second.len();
    second.copy_from_slice(&text.as_bytes()[..length]);
    second
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn written(at: SystemTime) -> String {
        let mut text = Vec::new();
        write(&mut text, at);
        String::from_utf8(text).expect("ASCII")
    }

    #[test]
    fn times_are_rfc_3339_in_utc_to_the_millisecond() {
        assert_eq!(written(UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
        let at = UNIX_EPOCH + Duration::from_millis(1_795_000_000_120);
        assert_eq!(written(at), "2026-11-18T11:06:40.120Z");
        let far = UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 1_000);
        assert!(written(far).starts_with("9999-"));
    }

    proptest! {
        #[test]
        fn written_time_parses_to_the_same_millisecond(millis in 0_u64..200_000_000_000_000) {
            let at = UNIX_EPOCH + Duration::from_millis(millis);
            let read: Timestamp = written(at).parse().expect("RFC 3339");
            prop_assert_eq!(read.as_millisecond(), millis as i64);
        }

        #[test]
        fn cached_second_is_not_used_for_another(
            seconds in prop::collection::vec(0_u64..1_000, 0..200),
        ) {
            for second in seconds {
                let at = UNIX_EPOCH + Duration::from_secs(second);
                let read: Timestamp = written(at).parse().expect("RFC 3339");
                prop_assert_eq!(read.as_second(), second as i64);
            }
        }
    }
}
