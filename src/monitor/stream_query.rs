//! The query of a request for the output of a job.

use http::HeaderMap;

use super::stream_head;
use crate::{job::JobId, protocol::EntityTags};

/// The query of a request for the output of a job.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StreamQuery {
    /// `offset`: the first byte of the body to send.
    pub(super) offset: u64,
    /// `run`: the call whose output the client has a part of.
    run: Option<u32>,
    /// `ids`: adds ids to events.
    pub(super) ids: bool,
}

impl StreamQuery {
    /// Parses a query, and ignores unknown parameters. Returns `None` if a value is malformed, or
    /// if a parameter is repeated.
    pub(super) fn parse(query: &str) -> Option<Self> {
        let (mut offset, mut run, mut ids) = (None, None, None);
        for pair in query.split('&') {
            let is_first = match pair.split_once('=').unwrap_or((pair, "")) {
                ("offset", value) => offset.replace(number(value)?).is_none(),
                ("run", value) => run.replace(number(value)?).is_none(),
                ("ids", "" | "1" | "true") => ids.replace(true).is_none(),
                ("ids", _) => return None,
                _ => true,
            };
            if !is_first {
                return None;
            }
        }
        let run = match run {
            Some(run) => Some(u32::try_from(run).ok()?),
            None => None,
        };
        Some(Self {
            offset: offset.unwrap_or(0),
            run,
            ids: ids.is_some(),
        })
    }

    /// Returns `true` if the client insists on a run.
    pub(super) fn names_run(&self, request: &HeaderMap) -> bool {
        let is_listed = matches!(EntityTags::if_match(request), Some(EntityTags::Listed(_)));
        self.run.is_some() || is_listed
    }

    /// Returns `true` if the client can use the output of `run` from byte `from` on.
    ///
    /// Offsets belong to one run. A client that names none may go on only while there is one.
    pub(super) fn accepts(&self, run: u32, from: u64, id: JobId, request: &HeaderMap) -> bool {
        let etag = stream_head::etag(id, run);
        let is_expected = match EntityTags::if_match(request) {
            Some(EntityTags::Listed(tags)) => {
                let named = tags.iter().any(|tag| {
                    let quoted = etag.as_bytes();
                    quoted.get(1..quoted.len() - 1) == Some(*tag)
                });
                Some(named)
            }
            Some(EntityTags::Any) | None => None,
        };
        match (is_expected, self.run) {
            (Some(false), _) => false,
            (_, Some(named)) => named == run,
            (Some(true), None) => true,
            (None, None) => from == 0 || run <= 1,
        }
    }
}

/// Parses digits: no sign and no space.
fn number(digits: &str) -> Option<u64> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_read_strictly() {
        let query = |offset, run, ids| Some(StreamQuery { offset, run, ids });
        for (text, expected) in [
            ("", query(0, None, false)),
            ("offset=7", query(7, None, false)),
            ("ids", query(0, None, true)),
            (
                "ids=1&run=2&offset=18446744073709551615",
                query(u64::MAX, Some(2), true),
            ),
            ("other=x&offset=0", query(0, None, false)),
            ("offset=", None),
            ("offset=-1", None),
            ("offset=+1", None),
            ("offset=18446744073709551616", None),
            ("offset=1&offset=1", None),
            ("run=4294967296", None),
            ("ids=no", None),
        ] {
            assert_eq!(StreamQuery::parse(text), expected, "{text}");
        }
    }
}
