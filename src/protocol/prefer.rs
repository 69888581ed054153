//! Parses and applies `Prefer` (RFC 7240).

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, header};

use super::{
    list::split,
    names::{PREFER, PREFERENCE_APPLIED},
};

/// The preferences of a request that the layer honors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Prefer {
    /// `respond-async` (RFC 7240 §4.1).
    pub(crate) respond_async: bool,
    /// `wait=N` in seconds (RFC 7240 §4.3), limited to the longest wait.
    pub(crate) wait: Option<Duration>,
    /// The preference for a callback, if the job notifies the receiver that the client has named.
    /// The layer sets it.
    pub(crate) callback: Option<&'static str>,
}

impl Prefer {
    /// Returns the value of `Preference-Applied` for a 202 or an inline response.
    pub(crate) fn applied(&self, is_accepted: bool) -> Option<HeaderValue> {
        let wait = self.wait.map(|wait| wait.as_secs());
        if let Some(callback) = self.callback.filter(|_| is_accepted) {
            let respond_async = self.respond_async.then(|| "respond-async".to_owned());
            let wait = wait.map(|wait| format!("wait={wait}"));
            let all = [respond_async, wait, Some(callback.to_owned())];
            let all: Vec<_> = all.into_iter().flatten().collect();
            return HeaderValue::try_from(all.join(", ")).ok();
        }
        match (self.respond_async && is_accepted, wait) {
            (false, None) => None,
            (true, None) => Some(HeaderValue::from_static("respond-async")),
            (false, Some(wait)) => HeaderValue::try_from(format!("wait={wait}")).ok(),
            (true, Some(wait)) => HeaderValue::try_from(format!("respond-async, wait={wait}")).ok(),
        }
    }

    /// Adds `Vary` and `Preference-Applied` to an inline response, if its head has room for them.
    pub(crate) fn mark_inline<R>(&self, response: &mut Response<R>) {
        let headers = response.headers_mut();
        let _ = headers.try_append(header::VARY, PREFER.into());
        if let Some(applied) = self.applied(false) {
            let _ = headers.try_append(PREFERENCE_APPLIED, applied);
        }
    }

    /// Parses all `Prefer` lines as one list and limits the wait to `max_wait`.
    ///
    /// Ignores unknown and malformed preferences. If one occurs twice, the first counts (RFC 7240
    /// §2).
    pub(crate) fn from_headers(headers: &HeaderMap, max_wait: Duration) -> Self {
        let mut prefer = Self::default();
        let mut wait_seen = false;
        for line in headers.get_all(PREFER) {
            for preference in split(line.as_bytes(), b',') {
                // Neither preference has parameters, which follow a semicolon.
                let Some(preference) = split(preference, b';').next() else {
                    continue;
                };
                let (name, value) = match preference.iter().position(|&byte| byte == b'=') {
                    Some(at) => (&preference[..at], preference[at + 1..].trim_ascii()),
                    None => (preference, &b""[..]),
                };
                let name = name.trim_ascii();
                if name.eq_ignore_ascii_case(b"respond-async") {
                    // An empty value equals no value (RFC 7240 §2).
                    prefer.respond_async |= unquoted(value).is_empty();
                } else if name.eq_ignore_ascii_case(b"wait") && !wait_seen {
                    wait_seen = true;
                    prefer.wait = seconds(unquoted(value)).map(|wait| wait.min(max_wait));
                }
            }
        }
        prefer
    }
}

fn unquoted(value: &[u8]) -> &[u8] {
    value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""))
        .unwrap_or(value)
}

/// Parses delta-seconds (RFC 9111 §1.2.2). Saturates on overflow.
fn seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = digits.iter().fold(0_u64, |seconds, digit| {
        seconds
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn prefer(lines: &[&[u8]]) -> Prefer {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                PREFER,
                HeaderValue::from_bytes(line).expect("a field value"),
            );
        }
        Prefer::from_headers(&headers, Duration::MAX)
    }

    #[test]
    fn preferences_parse_in_every_spelling() {
        for (lines, respond_async, wait) in [
            (&["respond-async"][..], true, None),
            (&["Respond-Async, WAIT=10"], true, Some(10)),
            (&["wait=10, respond-async"], true, Some(10)),
            (&["respond-async", "wait=10"], true, Some(10)),
            (&["wait = \"10\""], false, Some(10)),
            (&["respond-async=\"\"; foo=bar, wait=3;x"], true, Some(3)),
            (
                &["foo; bar=\"a, respond-async, \\\" wait=1\", wait=2"],
                false,
                Some(2),
            ),
            (&["wait=4, wait=5", "wait=6"], false, Some(4)),
            (&["wait=99999999999999999999999"], false, Some(u64::MAX)),
            (&["wait=0"], false, Some(0)),
            // Unknown or malformed.
            (&["respond-async=yes"], false, None),
            (&["respond-asynchronously, wait"], false, None),
            (&["wait=-1", "wait=3"], false, None),
            (&["wait=1.5, return=minimal, , ;;, =, \"", ""], false, None),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
            let wait = wait.map(Duration::from_secs);
            assert_eq!(
                prefer(&lines),
                Prefer {
                    respond_async,
                    wait,
                    callback: None
                },
                "{lines:?}"
            );
        }
    }

    #[test]
    fn wait_is_limited() {
        let mut headers = HeaderMap::new();
        headers.insert(PREFER, HeaderValue::from_static("wait=3600"));
        let limit = Duration::from_secs(60);
        assert_eq!(Prefer::from_headers(&headers, limit).wait, Some(limit));
    }

    proptest! {
        #[test]
        fn preference_is_found_after_junk(junk in "[a-z0-9=; -]{0,40}") {
            prop_assert!(prefer(&[junk.as_bytes(), b"respond-async"]).respond_async);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(line in vec(32_u8..=126, 0..80)) {
            prefer(&[&line]);
        }
    }
}
