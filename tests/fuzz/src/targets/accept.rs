//! `Accept`: lines of the field.

use http::{HeaderMap, HeaderValue, header::ACCEPT};

use super::input::values;
use crate::protocol::Format;

/// Media ranges with their type and subtype.
const RANGES: [(&str, &str); 8] = [
    ("*", "*"),
    ("application", "*"),
    ("application", "json"),
    ("text", "*"),
    ("text", "html"),
    ("text", "event-stream"),
    ("text", "plain"),
    ("image", "*"),
];

/// Checks negotiation: against a simple one for well-formed ranges, and rules for any text.
pub fn accept(input: &[u8]) {
    let headers = values(&ACCEPT, input);
    let format = Format::preferred(&headers);

    // The order of the lines and the case of the letters have no meaning.
    let mut backwards: Vec<_> = headers.get_all(ACCEPT).iter().collect();
    backwards.reverse();
    let backwards = HeaderMap::from_iter(backwards.into_iter().map(|v| (ACCEPT, v.clone())));
    let mut mirrored = HeaderMap::new();
    for (name, value) in &backwards {
        mirrored.append(name, upper_case(value));
    }
    assert_eq!(Format::preferred(&mirrored), format);

    // Only a range that includes a format selects it.
    let text = String::from_utf8_lossy(input).to_ascii_lowercase();
    let has_any = |words: [&str; 3]| words.iter().any(|word| text.contains(word));
    match format {
        Format::Json => {}
        Format::Page => assert!(has_any(["text/html", "text/*", "*/*"]), "{text}"),
        Format::Events => assert!(has_any(["text/event-stream", "text/*", "*/*"]), "{text}"),
    }

    // The document wins among equals.
    let mut with_json = headers.clone();
    with_json.append(ACCEPT, HeaderValue::from_static("application/json"));
    assert_eq!(Format::preferred(&with_json), Format::Json);

    well_formed(input);
}

/// Takes the input as a list of ranges with weights.
fn well_formed(input: &[u8]) {
    let ranges: Vec<(usize, u16)> = input
        .chunks_exact(2)
        .map(|pair| {
            (
                usize::from(pair[0]) % RANGES.len(),
                u16::from(pair[1]) * 4 % 1001,
            )
        })
        .collect();
    let texts = ranges.iter().map(|&(range, weight)| {
        let (ty, subty) = RANGES[range];
        format!("{ty}/{subty};q={}.{:03}", weight / 1000, weight % 1000)
    });
    let line = texts.collect::<Vec<_>>().join(", ");
    let headers = values(&ACCEPT, line.as_bytes());

    // The weight of a type is that of the most specific range that includes it.
    let weight = |ty: &str, subty: &str| {
        let including = ranges.iter().filter_map(|&(range, weight)| {
            let (of, sub) = RANGES[range];
            let includes = (of == "*" || of == ty) && (sub == "*" || sub == subty);
            let specificity = u8::from(of != "*") + u8::from(sub != "*");
            includes.then_some((specificity, weight))
        });
        including.max().map_or(0, |(_, weight)| weight)
    };
    let json = weight("application", "json");
    let (page, events) = (weight("text", "html"), weight("text", "event-stream"));
    let expected = if json >= page.max(events) {
        Format::Json
    } else if page >= events {
        Format::Page
    } else {
        Format::Events
    };
    assert_eq!(Format::preferred(&headers), expected, "{line}");
}

fn upper_case(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(&value.as_bytes().to_ascii_uppercase()).expect("a value as before")
}
