//! Cursors, ids and queries of a list: one line, whose bytes are also taken as a cursor.

use super::input::line;
use crate::{
    job::{Cursor, JobId},
    monitor::list::parse_filter,
};

/// Checks that each position has one text, in the order of positions, and that queries keep their
/// limits.
pub fn cursor(input: &[u8]) {
    let (text, _) = line(input);
    if let Ok(text) = str::from_utf8(text) {
        if let Ok(id) = text.parse::<JobId>() {
            assert_eq!(id.to_string(), text);
        }
        if let Ok(cursor) = text.parse::<Cursor>() {
            assert_eq!(cursor.to_string(), text);
            round_trip(cursor);
        }
        query(text);
    }

    let mut positions = input.chunks_exact(24).map(|bytes| {
        let (created_at, id) = bytes.split_at(8);
        let created_at = u64::from_be_bytes(created_at.try_into().expect("eight bytes"));
        (created_at, id_of(id))
    });
    if let Some(first) = positions.next() {
        let cursor = Cursor::from_unix_millis(first.0, first.1);
        round_trip(cursor);
        for other in positions {
            let other_cursor = Cursor::from_unix_millis(other.0, other.1);
            assert_eq!(cursor.cmp(&other_cursor), first.cmp(&other));
        }
    }
}

fn round_trip(cursor: Cursor) {
    let text = cursor.to_string();
    assert_eq!(text.parse(), Ok(cursor));
    assert_eq!(Cursor::new(cursor.created_at(), cursor.id()), cursor);
    let json = serde_json::to_string(&cursor).expect("a text");
    assert_eq!(
        serde_json::from_str::<Cursor>(&json).expect("a cursor"),
        cursor
    );
    // It stands in a query as it is.
    let filter = parse_filter(&format!("limit=7&cursor={text}")).expect("a query");
    assert_eq!((filter.get_limit(), filter.get_after()), (7, Some(cursor)));
}

fn query(text: &str) {
    if let Some(filter) = parse_filter(text) {
        assert!((1..=1000).contains(&filter.get_limit()));
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        let last = |name| pairs.clone().rfind(|pair| pair.0 == name);
        let status = last("status").map(|(_, status)| status.to_owned());
        assert_eq!(filter.get_status().map(|status| status.to_string()), status);
        let cursor = last("cursor").map(|(_, cursor)| cursor.to_owned());
        assert_eq!(filter.get_after().map(|cursor| cursor.to_string()), cursor);
    }
}

fn id_of(bytes: &[u8]) -> JobId {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode(bytes).parse().expect("16 bytes")
}
