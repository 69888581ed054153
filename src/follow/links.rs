//! Finds the references to a monitor in the head of a response.

use http::{HeaderMap, HeaderName, header};

/// The monitor's URI in Azure's guidelines.
const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");
/// The same field in Azure's resource manager.
const AZURE_ASYNC_OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");

/// The field that names a monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MonitorField {
    /// `Operation-Location` or `Azure-AsyncOperation`. The resource returns status documents.
    OperationLocation,
    /// `Link` with `rel="monitor"`.
    Link,
    /// `Content-Location`: the URI of the status in the 202's own content.
    ContentLocation,
    /// `Location`: a monitor, or the resource that the request will create.
    Location,
}

/// Returns the references to a monitor, in order of preference.
pub(super) fn monitors(headers: &HeaderMap) -> impl Iterator<Item = (MonitorField, &str)> {
    let fields = [
        (MonitorField::OperationLocation, OPERATION_LOCATION),
        (MonitorField::OperationLocation, AZURE_ASYNC_OPERATION),
        (MonitorField::Link, header::LINK),
        (MonitorField::ContentLocation, header::CONTENT_LOCATION),
        (MonitorField::Location, header::LOCATION),
    ];
    fields.into_iter().filter_map(|(kind, field)| {
        let reference = match kind {
            MonitorField::Link => linked(headers, "monitor"),
            _ => text(headers, &field),
        };
        Some((kind, reference?))
    })
}

/// Returns the reference in `Location`.
pub(super) fn location(headers: &HeaderMap) -> Option<&str> {
    text(headers, &header::LOCATION)
}

/// Returns the target of the first link with this relation (RFC 8288 §3).
///
/// Skips links with an `anchor`, whose context is another resource.
pub(super) fn linked<'a>(headers: &'a HeaderMap, relation: &str) -> Option<&'a str> {
    headers
        .get_all(header::LINK)
        .into_iter()
        .filter_map(|line| str::from_utf8(line.as_bytes()).ok())
        .flat_map(LinkIter)
        .find(|link| link.anchor.is_none() && link.has_relation(relation))
        .map(|link| link.target)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let text = str::from_utf8(headers.get(name)?.as_bytes())
        .ok()?
        .trim_ascii();
    Some(text).filter(|text| !text.is_empty())
}

/// Iterates over the links of one `Link` line. Ends at the first malformed one.
struct LinkIter<'a>(&'a str);

#[derive(Debug, PartialEq, Eq)]
struct LinkValue<'a> {
    target: &'a str,
    /// The relations, separated by spaces. Escapes are kept, since no relation needs one.
    relations: Option<&'a str>,
    anchor: Option<&'a str>,
}

impl<'a> Iterator for LinkIter<'a> {
    type Item = LinkValue<'a>;

    fn next(&mut self) -> Option<LinkValue<'a>> {
        let rest = self.0.trim_start_matches([' ', '\t', ',']);
        self.0 = "";
        let (target, mut rest) = rest.strip_prefix('<')?.split_once('>')?;
        let (mut relations, mut anchor) = (None, None);
        loop {
            rest = rest.trim_start_matches([' ', '\t']);
            let Some(parameter) = rest.strip_prefix(';') else {
                break;
            };
            let parameter = parameter.trim_start_matches([' ', '\t']);
            let (name, after) = cut(parameter, &['=', ';', ',', ' ', '\t']);
            rest = after.trim_start_matches([' ', '\t']);
            let mut value = "";
            if let Some(after) = rest.strip_prefix('=') {
                (value, rest) = self::value(after.trim_start_matches([' ', '\t']))?;
            }
            // If a parameter occurs twice, the first one counts (RFC 8288 §3.3).
            if name.eq_ignore_ascii_case("rel") {
                relations.get_or_insert(value);
            } else if name.eq_ignore_ascii_case("anchor") {
                anchor.get_or_insert(value);
            }
        }
        if rest.is_empty() || rest.starts_with(',') {
            self.0 = rest;
            let target = target.trim_ascii();
            return Some(LinkValue {
                target,
                relations,
                anchor,
            });
        }
        None
    }
}

impl LinkValue<'_> {
    fn has_relation(&self, relation: &str) -> bool {
        self.relations
            .unwrap_or_default()
            .split_ascii_whitespace()
            .any(|one| one.eq_ignore_ascii_case(relation))
    }
}

/// Splits a parameter's value, quoted or not, from the rest.
fn value(text: &str) -> Option<(&str, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return Some(cut(text, &[';', ',', ' ', '\t']));
    };
    let mut escaped = false;
    let end = quoted.find(|character| match character {
        _ if escaped => {
            escaped = false;
            false
        }
        '\\' => {
            escaped = true;
            false
        }
        character => character == '"',
    })?;
    Some((&quoted[..end], &quoted[end + 1..]))
}

/// Splits the text before the first of `ends`.
fn cut<'a>(text: &'a str, ends: &[char]) -> (&'a str, &'a str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.append(*name, value);
        }
        headers
    }

    #[test]
    fn monitors_are_in_order_of_preference() {
        let all = [
            ("location", "/location"),
            ("content-location", "/content-location"),
            ("link", "</next>; rel=next, </link>; rel=\"monitor\""),
            ("azure-asyncoperation", "/azure"),
            ("operation-location", "/operation"),
        ];
        let found: Vec<_> = monitors(&headers(&all))
            .map(|(_, at)| at.to_owned())
            .collect();
        assert_eq!(
            found,
            [
                "/operation",
                "/azure",
                "/link",
                "/content-location",
                "/location"
            ]
        );
        assert_eq!(monitors(&headers(&[("location", " ")])).count(), 0);
    }

    #[test]
    fn links_parse_in_every_spelling() {
        for (line, expected) in [
            ("</m>; rel=\"monitor\"", Some("/m")),
            ("</m>;rel=monitor", Some("/m")),
            ("< /m > ; REL = Monitor", Some("/m")),
            (
                "</m>; title=\"a, <b>; rel=c\"; rel=\"next monitor\"",
                Some("/m"),
            ),
            ("</m,n;o>; rel=monitor", Some("/m,n;o")),
            ("</a>; rel=next,</m>; rel=monitor", Some("/m")),
            ("</a>, ,</m>; rel=monitor", Some("/m")),
            ("</m>; title=\"\\\"\"; rel=monitor", Some("/m")),
            ("</m>; crossorigin; rel=monitor; x", Some("/m")),
            // Another context, another relation, or malformed.
            ("</m>; rel=monitor; anchor=\"/other\"", None),
            ("</m>; rel=next; rel=monitor", None),
            ("</m>; rel=monitors", None),
            ("</m>", None),
            ("/m; rel=monitor", None),
            ("</m; rel=monitor", None),
            ("</m>; rel=\"monitor", None),
            ("</m> rel=monitor", None),
            ("", None),
        ] {
            assert_eq!(
                linked(&headers(&[("link", line)]), "monitor"),
                expected,
                "{line}"
            );
        }
        let lines = [("link", "</a>; rel=next"), ("link", "</m>; rel=monitor")];
        assert_eq!(linked(&headers(&lines), "monitor"), Some("/m"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(line in "[ -~\t\u{80}-\u{ff}]{0,60}") {
            linked(&headers(&[("link", &line)]), "monitor");
        }

        #[test]
        fn monitor_is_found_among_other_links(
            others in vec(("/[a-z,;=]{0,8}", "[a-l]{1,5}", "[ -!#-\\[\\]-~]{0,10}"), 0..4),
            at in 0_usize..5,
            target in "/[!-=?-~]{0,20}",
        ) {
            let mut links: Vec<_> = others
                .iter()
                .map(|(target, rel, title)| format!("<{target}>; title=\"{title}\"; rel={rel}"))
                .collect();
            links.insert(at.min(links.len()), format!("<{target}>; rel=\"monitor\""));
            let line = links.join(", ");
            let headers = headers(&[("link", &line)]);
            prop_assert_eq!(linked(&headers, "monitor"), Some(target.as_str()));
        }
    }
}
