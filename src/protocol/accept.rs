//! Negotiates the format of a monitor's response (RFC 9110 §12.5.1).

use http::{HeaderMap, header};
use mediatype::{MediaType, MediaTypeList, Name, ReadParams, names};

/// A format of the monitor's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The status document. This is the default.
    Json,
    /// The HTML page.
    Page,
    /// The status documents as Server-Sent Events.
    Events,
}

/// A quality of 1, in thousandths.
const FULL: u16 = 1_000;

impl Format {
    /// Returns the format that a request prefers.
    ///
    /// If formats have the same quality, the document wins, then the page. If no format is
    /// acceptable, or the request has no `Accept`, this returns the document.
    pub(crate) fn preferred(headers: &HeaderMap) -> Self {
        let (mut json, mut page, mut events) = (Best::NONE, Best::NONE, Best::NONE);
        let mut message = Best::NONE;
        for line in headers.get_all(header::ACCEPT) {
            let Ok(line) = line.to_str() else { continue };
            if line == "*/*" {
                json.offer(0, FULL);
                page.offer(0, FULL);
                events.offer(0, FULL);
                continue;
            }
            for range in MediaTypeList::new(line).flatten() {
                let Some(quality) = quality(&range) else {
                    continue;
                };
                let is_json = range.subty == names::JSON || range.suffix == Some(names::JSON);
                if is_json {
                    json.offer(2, quality);
                } else {
                    json.range(&range, names::APPLICATION, names::JSON, quality);
                }
                page.range(&range, names::TEXT, names::HTML, quality);
                events.range(&range, names::TEXT, names::EVENT_STREAM, quality);
                if is_message(&range) {
                    message.offer(2, quality);
                }
            }
        }
        if message.quality > 0 && message.quality >= page.quality.max(events.quality) {
            // Only a result has this format, and the monitor may redirect to it.
            Self::Json
        } else if events.quality > page.quality.max(json.quality) {
            Self::Events
        } else if page.quality > json.quality {
            Self::Page
        } else {
            Self::Json
        }
    }
}

/// Returns `true` if a request prefers an HTTP message, `application/http`, to a representation of
/// this type. A wildcard does not ask for a message.
pub(crate) fn prefers_message(headers: &HeaderMap, content_type: Option<&str>) -> bool {
    let own = content_type.and_then(|text| MediaType::parse(text).ok());
    let (mut message, mut plain) = (Best::NONE, Best::NONE);
    for line in headers.get_all(header::ACCEPT) {
        let Ok(line) = line.to_str() else { continue };
        for range in MediaTypeList::new(line).flatten() {
            let Some(quality) = quality(&range) else {
                continue;
            };
            let is_own = |own: &MediaType<'_>| {
                (range.ty, range.subty, range.suffix) == (own.ty, own.subty, own.suffix)
            };
            match &own {
                _ if is_message(&range) => message.offer(2, quality),
                Some(own) if is_own(own) => plain.offer(2, quality),
                // Compares the wildcards only.
                Some(own) => plain.range(&range, own.ty, names::HTTP, quality),
                None => {}
            }
        }
    }
    message.quality > 0 && message.quality >= plain.quality
}

fn is_message(range: &MediaType<'_>) -> bool {
    range.ty == names::APPLICATION && range.subty == names::HTTP && range.suffix.is_none()
}

/// The quality of one media type, from the most specific range so far that includes it.
#[derive(Clone, Copy)]
struct Best {
    specificity: u8,
    quality: u16,
}

impl Best {
    const NONE: Self = Self {
        specificity: 0,
        quality: 0,
    };

    fn range(&mut self, range: &MediaType<'_>, ty: Name<'_>, subty: Name<'_>, quality: u16) {
        let specificity = match (range.ty == ty, range.subty.as_str()) {
            (true, _) if range.subty == subty && range.suffix.is_none() => 2,
            (true, "*") => 1,
            (false, "*") if range.ty.as_str() == "*" => 0,
            _ => return,
        };
        self.offer(specificity, quality);
    }

    fn offer(&mut self, specificity: u8, quality: u16) {
        if specificity > self.specificity {
            *self = Self {
                specificity,
                quality,
            };
        } else if specificity == self.specificity {
            self.quality = self.quality.max(quality);
        }
    }
}

/// Returns the weight of a range in thousandths (RFC 9110 §12.4.2), or `None` if it is malformed.
///
/// Ignores other parameters, since each format has a single variant.
fn quality(range: &MediaType<'_>) -> Option<u16> {
    let Some(value) = range.get_param(names::Q) else {
        return Some(FULL);
    };
    let value = value.unquoted_str();
    let (whole, decimals) = value.split_once('.').unwrap_or((&value, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(FULL),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn preferred(lines: &[&str]) -> Format {
        let mut headers = HeaderMap::new();
        for line in lines {
            let line = HeaderValue::from_str(line).expect("a field value");
            headers.append(header::ACCEPT, line);
        }
        Format::preferred(&headers)
    }

    #[test]
    fn format_of_the_highest_quality_wins() {
        const CHROMIUM: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,\
            image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7";
        for (lines, format) in [
            (&[][..], Format::Json),
            (&["*/*"], Format::Json),
            (&[""], Format::Json),
            (&["application/json"], Format::Json),
            (&[CHROMIUM], Format::Page),
            (&["text/html"], Format::Page),
            (&["TEXT/HTML; Q=0.5 , application/json;q=0.4"], Format::Page),
            (&["text/html;q=0.5, application/json"], Format::Json),
            (&["text/html, application/json"], Format::Json),
            (&["application/json;q=0.9", "text/html"], Format::Page),
            (&["text/html, */*"], Format::Json),
            (&["text/html, */*;q=0.999"], Format::Page),
            (&["text/*, application/json;q=0.2"], Format::Page),
            (
                &["text/*, text/html;q=0, application/json;q=0.2"],
                Format::Events,
            ),
            (&["text/html;q=0.5, application/fhir+json"], Format::Json),
            (&["text/html;q=0.5, application/*"], Format::Json),
            (&["application/xhtml+xml"], Format::Json),
            (&["text/event-stream"], Format::Events),
            (
                &["text/event-stream, text/html;q=0.9, */*;q=0.1"],
                Format::Events,
            ),
            (&["text/event-stream, */*"], Format::Json),
            (&["text/html;q=0"], Format::Json),
            // Commas in quoted strings do not separate ranges. Malformed weights are ignored.
            (&["text/plain;a=\", text/html\""], Format::Json),
            (
                &["text/html;q=2, text/html;q=x, text/html;q=0.1234"],
                Format::Json,
            ),
            (&["nonsense, text/html"], Format::Page),
        ] {
            assert_eq!(preferred(lines), format, "{lines:?}");
        }
    }

    #[test]
    fn message_is_preferred_only_if_it_is_named() {
        for (line, own, is_preferred) in [
            ("application/http", Some("application/json"), true),
            ("Application/HTTP; msgtype=response", None, true),
            (
                "application/http, application/json",
                Some("application/json"),
                true,
            ),
            (
                "application/http;q=0.5, application/json",
                Some("application/json"),
                false,
            ),
            (
                "application/http;q=0.5, application/json",
                Some("image/png"),
                true,
            ),
            (
                "application/http;q=0.5, application/*",
                Some("application/fhir+json"),
                false,
            ),
            (
                "application/http;q=0.5, application/fhir+json;q=0.4",
                Some("application/fhir+json"),
                true,
            ),
            ("application/http;q=0.5, */*", Some("image/png; a=b"), false),
            ("application/http, */*;q=0.1", Some("image/png"), true),
            ("application/http;q=0", Some("image/png"), false),
            ("application/http;q=x", None, false),
            ("application/http+json", None, false),
            ("application/*", None, false),
            ("*/*", None, false),
            ("", None, false),
        ] {
            let line_value = HeaderValue::from_static(line);
            let headers = HeaderMap::from_iter([(header::ACCEPT, line_value)]);
            assert_eq!(prefers_message(&headers, own), is_preferred, "{line}");
        }
        assert_eq!(
            preferred(&["application/http, text/html;q=0.9"]),
            Format::Json
        );
        assert_eq!(
            preferred(&["application/http;q=0.1, text/html"]),
            Format::Page
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(line in "[ -~\t]{0,60}") {
            preferred(&[&line]);
            let headers = HeaderMap::from_iter(line.parse().map(|line| (header::ACCEPT, line)));
            prefers_message(&headers, Some(&line));
        }

        #[test]
        fn page_wins_only_above_the_weight_of_json(
            html in 1_u16..1_000,
            json in 0_u16..1_000,
        ) {
            let line = format!("application/json;q=0.{json:03}, text/html;q=0.{html:03}");
            let format = if html > json { Format::Page } else { Format::Json };
            prop_assert_eq!(preferred(&[&line]), format);
        }
    }
}
