//! Times as documents have them.

use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};

const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(0));

/// `2026-11-24T13:40:01`
type Second = [u8; 19];

/// How many seconds a thread keeps in writing: the jobs that are asked for are those of the last
/// minute, and a document has up to four times.
const KEPT: u64 = 127;

thread_local! {
    /// The seconds written last, each in the place of its number. Borrowed by [`write()`] alone, which
    /// calls nothing that calls it.
    static SECONDS: RefCell<[(u64, Second); KEPT as usize]> =
        const { RefCell::new([(u64::MAX, [0; 19]); KEPT as usize]) };
}

/// Writes a time as in RFC 3339, in UTC and to the millisecond.
///
/// A calendar takes a third of the time that a document takes; most documents are of seconds that
/// were written before.
pub(super) fn write(to: &mut Vec<u8>, at: SystemTime) {
    // No clock that jobs are made by is before the epoch of Unix.
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = since.as_secs();
    SECONDS.with_borrow_mut(|kept| {
        let (number, text) = &mut kept[(second % KEPT) as usize];
        if *number != second {
            (*number, *text) = (second, print(second));
        }
        to.extend_from_slice(text);
    });
    let digit = |of: u32| b'0' + (since.subsec_millis() / of % 10) as u8;
    to.extend_from_slice(&[b'.', digit(100), digit(10), digit(1), b'Z']);
}

fn print(second: u64) -> Second {
    // The last time there is stands for what is beyond it: retained "for ever".
    let time = i64::try_from(second).ok();
    let time = time.and_then(|second| Timestamp::from_second(second).ok());
    let text = PRINTER.timestamp_to_string(&time.unwrap_or(Timestamp::MAX));
    let mut second = Second::default();
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
        fn any_time_is_read_back_to_the_millisecond(millis in 0_u64..200_000_000_000_000) {
            let at = UNIX_EPOCH + Duration::from_millis(millis);
            let read: Timestamp = written(at).parse().expect("RFC 3339");
            prop_assert_eq!(read.as_millisecond(), millis as i64);
        }

        #[test]
        fn a_kept_second_is_not_taken_for_another(seconds in prop::collection::vec(0_u64..1_000, 0..200)) {
            for second in seconds {
                let at = UNIX_EPOCH + Duration::from_secs(second);
                let read: Timestamp = written(at).parse().expect("RFC 3339");
                prop_assert_eq!(read.as_second(), second as i64);
            }
        }
    }
}
