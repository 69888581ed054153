//! Finds the events of an event stream (HTML standard §9.2.6).

/// The number of bytes of a field's name that are compared.
const MAX_NAME_BYTES: usize = 5;

/// The maximum length of an event's id that is looked up, in bytes. A longer one is unknown.
const MAX_ID_BYTES: usize = 1024;

/// The UTF-8 byte order mark, which may begin a stream (HTML standard §9.2.5).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Finds the events of an event stream, in bytes that come in chunks of any size.
///
/// A line ends with CR, LF or CRLF, and an empty line ends an event. The LF of a CRLF may come in
/// the next chunk, so an event ends after the CR.
#[derive(Debug, Default)]
pub(crate) struct EventScanner {
    /// The number of bytes that have been scanned.
    offset: u64,
    line: Line,
    event: PartialEvent,
    /// Set after a CR: an LF that follows ends no line.
    is_after_cr: bool,
}

/// The line that is being scanned.
#[derive(Debug, Default)]
struct Line {
    is_begun: bool,
    name: [u8; MAX_NAME_BYTES],
    /// The length of the name so far; beyond [`MAX_NAME_BYTES`] the name is unknown.
    name_length: usize,
    is_name_complete: bool,
    /// The value, if the field is `id`.
    id: Vec<u8>,
}

/// The fields so far of an event that has not ended.
#[derive(Debug, Default)]
struct PartialEvent {
    has_data: bool,
    id: Option<Vec<u8>>,
}

/// The end of an event, or of a block without data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EventEnd {
    /// The number of bytes of the chunk before the empty line.
    pub(crate) before_end: usize,
    /// The number of bytes of the chunk up to the end of the event.
    pub(crate) length: usize,
    /// The number of bytes of the stream up to the end of the event, from where the scan began.
    pub(crate) offset: u64,
    /// Set if a client dispatches the event.
    pub(crate) has_data: bool,
    /// The event's id, if it has one.
    pub(crate) id: Option<Vec<u8>>,
}

impl EventScanner {
    /// Scans a chunk up to the end of the first event in it. Returns `None` if no event ends there.
    pub(crate) fn next(&mut self, chunk: &[u8]) -> Option<EventEnd> {
        for (index, &byte) in chunk.iter().enumerate() {
            let at = self.offset;
            self.offset += 1;
            let is_mark = at < BYTE_ORDER_MARK.len() as u64
                && BYTE_ORDER_MARK.get(at as usize) == Some(&byte);
            let is_rest_of_crlf = std::mem::take(&mut self.is_after_cr) && byte == b'\n';
            if is_mark || is_rest_of_crlf {
                continue;
            }
            if byte != b'\r' && byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            self.is_after_cr = byte == b'\r';
            if self.line.is_begun {
                self.event.add(std::mem::take(&mut self.line));
                continue;
            }
            let event = std::mem::take(&mut self.event);
            return Some(EventEnd {
                before_end: index,
                length: index + 1,
                offset: self.offset,
                has_data: event.has_data,
                id: event.id,
            });
        }
        None
    }
}

impl Line {
    fn push(&mut self, byte: u8) {
        self.is_begun = true;
        if self.is_name_complete {
            if self.name() == b"id" && self.id.len() <= MAX_ID_BYTES {
                self.id.push(byte);
            }
        } else if byte == b':' {
            self.is_name_complete = true;
        } else {
            if let Some(next) = self.name.get_mut(self.name_length) {
                *next = byte;
            }
            self.name_length += 1;
        }
    }

    /// Returns the name of the field. A longer name than any that matters is empty.
    fn name(&self) -> &[u8] {
        self.name.get(..self.name_length).unwrap_or_default()
    }
}

impl PartialEvent {
    fn add(&mut self, line: Line) {
        match line.name() {
            b"data" => self.has_data = true,
            b"id" => self.id = Some(line.id.strip_prefix(b" ").unwrap_or(&line.id).to_vec()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Returns the end, the id and `has_data` of each block.
    fn scan(chunks: &[&[u8]]) -> Vec<(u64, Option<String>, bool)> {
        let mut scanner = EventScanner::default();
        let mut found = Vec::new();
        for chunk in chunks {
            let mut rest = *chunk;
            while let Some(end) = scanner.next(rest) {
                let id = end.id.map(|id| String::from_utf8_lossy(&id).into_owned());
                found.push((end.offset, id, end.has_data));
                rest = &rest[end.length..];
            }
        }
        found
    }

    #[test]
    fn events_end_with_an_empty_line() {
        let id = |id: &str| Some(id.to_owned());
        for (text, expected) in [
            ("data: a\n\n", vec![(9, None, true)]),
            ("data\r\rdata\r\r", vec![(6, None, true), (12, None, true)]),
            ("id: 7\r\ndata:x\r\n\r\n", vec![(16, id("7"), true)]),
            ("id:a:b\n\n", vec![(8, id("a:b"), false)]),
            ("id\n\n", vec![(4, id(""), false)]),
            (": comment\n\n", vec![(11, None, false)]),
            ("\u{feff}data: a\n\n", vec![(12, None, true)]),
            ("idx: 1\ndatabase: 2\n\n", vec![(20, None, false)]),
            ("data: cut off\n", vec![]),
        ] {
            assert_eq!(scan(&[text.as_bytes()]), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            lines in vec(prop_oneof![
                Just("data: x"), Just("id: 5"), Just(""), Just("id"), Just(": c"), Just("data")
            ], 0..20),
            ending in prop_oneof![Just("\n"), Just("\r"), Just("\r\n")],
            cuts in vec(0_usize..200, 0..5),
        ) {
            let text: String = lines.iter().flat_map(|line| [line, ending]).collect();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut start = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                chunks.push(&text.as_bytes()[start..cut]);
                start = cut;
            }
            prop_assert_eq!(scan(&chunks), scan(&[text.as_bytes()]));
        }
    }
}
