use http::{HeaderMap, HeaderName, header};

/// Where clients of Azure's convention look first.
const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");
/// The older name of the same, of Azure's resource manager.
const AZURE_ASYNC_OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");

/// How a 202 names its monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// `Operation-Location`, or `Azure-AsyncOperation`: a resource that answers with a document.
    OperationLocation,
    /// `Link` with `rel="monitor"`.
    Link,
    /// `Content-Location`: where the 202's own content, the state of things, can be had again.
    ContentLocation,
    /// `Location`: a monitor with some, with others the thing that will be there.
    Location,
}

/// The references to a monitor in a response's head, the one to be preferred first.
pub(super) fn monitors(headers: &HeaderMap) -> impl Iterator<Item = (Named, &str)> {
    let fields = [
        (Named::OperationLocation, OPERATION_LOCATION),
        (Named::OperationLocation, AZURE_ASYNC_OPERATION),
        (Named::Link, header::LINK),
        (Named::ContentLocation, header::CONTENT_LOCATION),
        (Named::Location, header::LOCATION),
    ];
    fields.into_iter().filter_map(|(named, field)| {
        let reference = match named {
            Named::Link => linked(headers, "monitor"),
            _ => text(headers, &field),
        };
        Some((named, reference?))
    })
}

pub(super) fn location(headers: &HeaderMap) -> Option<&str> {
    text(headers, &header::LOCATION)
}

/// The target of the first link with that relation (RFC 8288) of the response itself, not of what
/// an `anchor` names.
pub(super) fn linked<'a>(headers: &'a HeaderMap, relation: &str) -> Option<&'a str> {
    headers
        .get_all(header::LINK)
        .into_iter()
        .filter_map(|line| str::from_utf8(line.as_bytes()).ok())
        .flat_map(Links)
        .find(|link| link.anchor.is_none() && link.relates(relation))
        .map(|link| link.target)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let text = str::from_utf8(headers.get(name)?.as_bytes())
        .ok()?
        .trim_ascii();
    Some(text).filter(|text| !text.is_empty())
}

/// The links of one `Link` line. What is malformed ends it.
struct Links<'a>(&'a str);

#[derive(Debug, PartialEq, Eq)]
struct Link<'a> {
    target: &'a str,
    /// The relations, between blanks. Backslashes that escape are left in: no relation has any.
    relations: Option<&'a str>,
    anchor: Option<&'a str>,
}

impl<'a> Iterator for Links<'a> {
    type Item = Link<'a>;

    fn next(&mut self) -> Option<Link<'a>> {
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
            // Of a parameter given twice the first counts (RFC 8288 §3.3).
            if name.eq_ignore_ascii_case("rel") {
                relations.get_or_insert(value);
            } else if name.eq_ignore_ascii_case("anchor") {
                anchor.get_or_insert(value);
            }
        }
        if rest.is_empty() || rest.starts_with(',') {
            self.0 = rest;
            let target = target.trim_ascii();
            return Some(Link {
                target,
                relations,
                anchor,
            });
        }
        None
    }
}

impl Link<'_> {
    fn relates(&self, relation: &str) -> bool {
        self.relations
            .unwrap_or_default()
            .split_ascii_whitespace()
            .any(|one| one.eq_ignore_ascii_case(relation))
    }
}

/// A parameter's value, quoted or not, and what follows it.
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
    fn the_monitor_is_looked_for_in_order() {
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
    fn links_are_read_in_every_spelling() {
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
            // Not of this response, of another relation, or malformed.
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
        fn no_text_makes_it_panic(line in "[ -~\t\u{80}-\u{ff}]{0,60}") {
            linked(&headers(&[("link", &line)]), "monitor");
        }

        #[test]
        fn a_monitor_is_found_among_other_links(
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
