//! The bytes that the budget counts for what is kept.

use http::{HeaderMap, request};

use crate::job::Progress;

/// The bytes of a field in a [`HeaderMap`] besides its texts: its entry and its part of the index.
const FIELD_BYTES: usize = 112;

/// The bytes of a request's head besides its fields and its target.
const REQUEST_BYTES: usize = 256;

/// The bytes of a reported progress besides its message.
const PROGRESS_BYTES: usize = 96;

/// The bytes of a reported title besides its text.
const TITLE_BYTES: usize = 32;

/// The copies of a message: one in the job's handle, which grows in powers of two, and one in the
/// store.
const MESSAGE_COPIES: usize = 3;

/// Returns the price of fields: a head's or trailers.
pub fn fields_price(fields: &HeaderMap) -> usize {
    let texts = fields.iter();
    let texts = texts.map(|(name, value)| name.as_str().len() + value.len());
    texts.map(|text| text + FIELD_BYTES).sum()
}

/// Returns the price of a request without its body and trailers.
pub fn request_price(head: &request::Parts) -> usize {
    let path = head.uri.path_and_query();
    let target = path.map_or(0, |path| path.as_str().len());
    REQUEST_BYTES + target + fields_price(&head.headers)
}

/// Returns the price of the progress that a call has reported.
pub fn progress_price(progress: &Progress) -> usize {
    if *progress == Progress::default() {
        return 0;
    }
    let message = progress.message.as_ref();
    let message = message.map_or(0, |message| message.len());
    // The store and the job's handle share a title.
    let title = progress.title.as_ref();
    let title = title.map_or(0, |title| TITLE_BYTES + title.len());
    PROGRESS_BYTES + MESSAGE_COPIES * message + title
}
