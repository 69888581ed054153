//! Parses the preference `callback` (OData 4.01 §8.2.8.2).

use http::HeaderMap;

use super::{list::split, names::PREFER};

/// The names of the preference: OData 4.01's, and that of 4.0.
const NAMES: [&str; 2] = ["callback", "odata.callback"];

/// Returns the name of the first preference for a callback, and its URL.
///
/// Ignores a preference without a URL. It is malformed, so the next one does not count either (RFC
/// 7240 §2).
pub(crate) fn callback_preference(headers: &HeaderMap) -> Option<(&'static str, String)> {
    let lines = headers.get_all(PREFER).iter();
    let preferences = lines.flat_map(|line| split(line.as_bytes(), b','));
    let mut named = preferences.filter_map(|preference| {
        let mut parts = split(preference, b';');
        let name = parts.next()?.trim_ascii();
        let mut known = NAMES.into_iter();
        let name = known.find(|known| name.eq_ignore_ascii_case(known.as_bytes()))?;
        Some((name, parts.find_map(url_parameter)))
    });
    let (name, url) = named.next()?;
    Some((name, url?))
}

/// Returns the value of the parameter `url`.
fn url_parameter(parameter: &[u8]) -> Option<String> {
    let equals = parameter.iter().position(|&byte| byte == b'=')?;
    let (name, value) = (&parameter[..equals], &parameter[equals + 1..]);
    if !name.trim_ascii().eq_ignore_ascii_case(b"url") {
        return None;
    }
    let value = value.trim_ascii();
    let quoted = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    let value = match quoted {
        Some(quoted) => unescaped(quoted),
        None => value.to_vec(),
    };
    String::from_utf8(value).ok().filter(|url| !url.is_empty())
}

/// Returns the text of a quoted string (RFC 9110 §5.6.4).
fn unescaped(quoted: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(&byte) = bytes.next() {
        let byte = if byte == b'\\' {
            bytes.next().copied().unwrap_or(byte)
        } else {
            byte
        };
        text.push(byte);
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn preferred(lines: &[&str]) -> Option<(&'static str, String)> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(PREFER, HeaderValue::from_str(line).expect("a value"));
        }
        callback_preference(&headers)
    }

    #[test]
    fn callback_has_its_url_in_every_spelling() {
        let url = "https://h.example/a;b,c?d=\"e\"";
        let quoted = r#"https://h.example/a;b,c?d=\"e\""#;
        for lines in [
            &[&*format!("callback; url=\"{quoted}\"")][..],
            &[
                "respond-async, wait=5",
                &format!("Callback;x=1 ; URL = \"{quoted}\""),
            ],
            &[&format!(
                "callback;url=\"{quoted}\", callback; url=\"https://other.example\""
            )],
        ] {
            assert_eq!(
                preferred(lines),
                Some(("callback", url.to_owned())),
                "{lines:?}"
            );
        }
        assert_eq!(
            preferred(&["odata.callback; url=https://h.example/"]),
            Some(("odata.callback", "https://h.example/".to_owned()))
        );
    }

    #[test]
    fn malformed_callback_is_ignored() {
        for line in [
            "",
            "callback",
            "callback; url",
            "callback; url=\"\"",
            "callback; uri=\"https://h.example\"",
            "callbacks; url=\"https://h.example\"",
            "x=\"callback; url=https://h.example\"",
            "callback, callback; url=\"https://h.example\"",
        ] {
            assert_eq!(preferred(&[line]), None, "{line}");
        }
    }
}
