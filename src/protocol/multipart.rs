//! Multipart bodies, whatever their boundary (RFC 2046 §5.1.1).

use mediatype::{MediaType, ReadParams, names};
use memchr::memmem::Finder;

/// A multipart media type.
pub(crate) struct Multipart {
    /// The delimiter of the body's parts, without the line break before it.
    delimiter: Vec<u8>,
    /// The media type without its boundary.
    pub(crate) content_type: String,
}

impl Multipart {
    /// Parses the value of `Content-Type`. Returns `None` for any other media type.
    pub(crate) fn new(content_type: &str) -> Option<Self> {
        let media_type = MediaType::parse(content_type).ok()?;
        if media_type.ty != names::MULTIPART {
            return None;
        }
        let boundary = media_type.get_param(names::BOUNDARY)?;
        let boundary = boundary.unquoted_str();
        let mut rest = media_type.essence().to_string();
        for (name, value) in media_type.params() {
            if name != names::BOUNDARY {
                rest.push_str(&format!("; {name}={value}"));
            }
        }
        Some(Self {
            delimiter: format!("--{boundary}").into_bytes(),
            content_type: rest,
        })
    }

    /// Returns bytes that are equal for bodies which differ only in their boundary: the texts
    /// between the delimiters, each after its length.
    pub(crate) fn without_boundary(&self, body: &[u8]) -> Vec<u8> {
        let mut texts = Vec::with_capacity(body.len());
        let mut push = |text: &[u8]| {
            texts.extend_from_slice(&(text.len() as u64).to_be_bytes());
            texts.extend_from_slice(text);
        };
        let mut start = 0;
        for at in Finder::new(&self.delimiter).find_iter(body) {
            let begins_a_line = at == 0 || body[at - 1] == b'\n';
            if begins_a_line {
                push(&body[start..at]);
                start = at + self.delimiter.len();
            }
        }
        push(&body[start..]);
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(boundary: &str, value: &str) -> (String, Vec<u8>) {
        let content_type = format!("multipart/form-data; charset=utf-8; boundary=\"{boundary}\"");
        let multipart = Multipart::new(&content_type).expect("a multipart type");
        let name = "content-disposition: form-data; name=\"a\"";
        let body = format!("--{boundary}\r\n{name}\r\n\r\n{value}\r\n--{boundary}--\r\n");
        let body = multipart.without_boundary(body.as_bytes());
        (multipart.content_type, body)
    }

    #[test]
    fn boundary_does_not_matter() {
        let one = form("----WebKitFormBoundaryA", "1");
        assert_eq!(one, form("0(other)", "1"));
        assert_eq!(one.0, "multipart/form-data; charset=utf-8");
        assert_ne!(one, form("0(other)", "2"));
        // A line of one part, and a delimiter between two.
        assert_ne!(form("x", "1\r\n--\r\n2"), form("x", "1\r\n--x\r\n2"));
        // A boundary within a line is content.
        assert_ne!(form("x", "1 --x"), form("y", "1 --y"));
    }

    #[test]
    fn other_types_have_no_boundary() {
        for content_type in [
            "",
            "multipart/form-data",
            "text/plain; boundary=x",
            "multipart",
        ] {
            assert!(Multipart::new(content_type).is_none(), "{content_type}");
        }
    }
}
