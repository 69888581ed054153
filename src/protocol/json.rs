//! JSON texts, whatever the order of the members of their objects.

use std::ops::Range;

use mediatype::{MediaType, names};
use serde::de::IgnoredAny;

/// The maximum depth of a text. It bounds the stack, and how often a byte is copied.
const MAX_DEPTH: usize = 64;

/// Returns `true` for the media types of JSON texts, such as `application/problem+json`.
pub(crate) fn is_json(content_type: &str) -> bool {
    MediaType::parse(content_type).is_ok_and(|media_type| {
        media_type.subty == names::JSON || media_type.suffix == Some(names::JSON)
    })
}

/// Returns a text that is equal for JSON texts which differ only in the order of the members of
/// their objects, and in white space between tokens.
///
/// Strings and numbers stay as they are, and so does the order of members with the same name. So no
/// two texts of different values become equal. Returns `None` if the text is not JSON, or nested
/// too deeply.
pub(crate) fn sort_members(text: &[u8]) -> Option<Vec<u8>> {
    // The sorter relies on valid syntax.
    serde_json::from_slice::<IgnoredAny>(text).ok()?;
    let mut sorter = MemberSorter {
        rest: text,
        sorted: Vec::with_capacity(text.len()),
    };
    sorter.write_value(MAX_DEPTH)?;
    Some(sorter.sorted)
}

struct MemberSorter<'a> {
    rest: &'a [u8],
    sorted: Vec<u8>,
}

impl<'a> MemberSorter<'a> {
    fn write_value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'{' => self.write_object(depth.checked_sub(1)?),
            b'[' => self.write_array(depth.checked_sub(1)?),
            b'"' => self.write_string().map(drop),
            _ => {
                let is_end = |byte: &u8| b",]}".contains(byte) || byte.is_ascii_whitespace();
                let end = self.rest.iter().position(is_end);
                self.write(end.unwrap_or(self.rest.len())).map(drop)
            }
        }
    }

    fn write_object(&mut self, depth: usize) -> Option<()> {
        self.write(1)?;
        let start = self.sorted.len();
        // The name of each member, and its place from `start` on.
        let mut members: Vec<(&[u8], Range<usize>)> = Vec::new();
        loop {
            match self.peek()? {
                b'}' => break,
                b',' => self.rest = &self.rest[1..],
                _ => {
                    let from = self.sorted.len() - start;
                    let name = self.write_string()?;
                    // The colon.
                    self.peek()?;
                    self.write(1)?;
                    self.write_value(depth)?;
                    self.sorted.push(b',');
                    members.push((name, from..self.sorted.len() - start));
                }
            }
        }
        if !members.is_sorted_by_key(|(name, _)| *name) {
            members.sort_by_key(|(name, _)| *name);
            let unsorted = self.sorted.split_off(start);
            for (_, place) in members {
                self.sorted.extend_from_slice(&unsorted[place]);
            }
        }
        self.write(1).map(drop)
    }

    fn write_array(&mut self, depth: usize) -> Option<()> {
        self.write(1)?;
        loop {
            match self.peek()? {
                b']' => return self.write(1).map(drop),
                b',' => self.write(1).map(drop)?,
                _ => self.write_value(depth)?,
            }
        }
    }

    fn write_string(&mut self) -> Option<&'a [u8]> {
        let mut length = 1;
        loop {
            match self.rest.get(length)? {
                b'\\' => length += 2,
                b'"' => return self.write(length + 1),
                _ => length += 1,
            }
        }
    }

    /// Returns the first byte of the next token.
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.first().copied()
    }

    /// Moves bytes from the text to the sorted one.
    fn write(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (token, rest) = self.rest.split_at_checked(bytes)?;
        self.sorted.extend_from_slice(token);
        self.rest = rest;
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::{Value, json};

    use super::*;

    fn sorted(text: &str) -> Option<String> {
        let sorted = sort_members(text.as_bytes())?;
        Some(String::from_utf8(sorted).expect("UTF-8"))
    }

    #[test]
    fn order_of_members_does_not_matter() {
        let one = r#" {"b" : [1, {"y":"\"}","x":null} , "a , b"],"a":{ } } "#;
        let other = r#"{"a":{},"b":[1,{"x":null,"y":"\"}"},"a , b"]}"#;
        assert_eq!(sorted(one), sorted(other));
        assert!(sorted(one).is_some());
    }

    #[test]
    fn different_values_stay_different() {
        let texts = [
            "[1,2]",
            "[2,1]",
            "[12]",
            "[[1],2]",
            r#"{"a":1,"a":2}"#,
            r#"{"a":2,"a":1}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":{},"b":1}"#,
            "123456789012345678901",
            "123456789012345678902",
            "1.0",
            "\"1.0\"",
        ];
        for (at, one) in texts.iter().enumerate() {
            for other in &texts[at + 1..] {
                assert_ne!(sorted(one), sorted(other));
            }
        }
    }

    #[test]
    fn other_texts_are_not_sorted() {
        let deep = "[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1);
        let endless = "[".repeat(1 << 20);
        for text in ["", "{", "{\"a\"}", "[1,]", "1 2", "\"open", &deep, &endless] {
            assert_eq!(sorted(text), None);
        }
        assert!(sorted(&deep[1..=2 * MAX_DEPTH]).is_some());
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::from),
            "[ab\"\\\\{}:,]{0,4}".prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                vec(("[ab\"{},]{0,2}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Writes the members of each object in reverse.
    fn reversed(value: &Value) -> String {
        match value {
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(reversed).collect();
                format!("[ {} ]", items.join(" , "))
            }
            Value::Object(members) => {
                let members = members.iter().rev();
                let members =
                    members.map(|(name, value)| format!("{} : {}", json!(name), reversed(value)));
                format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
            }
            leaf => leaf.to_string(),
        }
    }

    proptest! {
        #[test]
        fn equal_values_and_no_others_are_sorted_alike(one in values(), other in values()) {
            let written = sorted(&one.to_string());
            prop_assert!(written.is_some());
            prop_assert_eq!(&written, &sorted(&reversed(&one)));
            prop_assert_eq!(written == sorted(&other.to_string()), one == other);
        }
    }
}
