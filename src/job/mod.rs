//! One job: its id, its states, its snapshots, and the handle that the inner service has.

mod callback;
mod cursor;
mod digest;
mod document;
mod filter;
mod forecast;
mod handle;
mod id;
mod key;
mod owner;
mod snapshot;
mod state;
mod timestamp;

pub use self::{
    callback::CallbackTarget,
    cursor::{Cursor, ParseCursorError},
    filter::{Filter, Page},
    handle::{JobHandle, Progress},
    id::{JobId, ParseJobIdError},
    key::{Fingerprint, Key},
    owner::Owner,
    snapshot::{Failure, ResponseHead, Snapshot},
    state::{ErrorCode, Event, ParseErrorCodeError, ParseStatusError, Status},
};
pub(crate) use self::{
    document::{document, percent},
    handle::CallScope,
    id::IdText,
    key::InvalidKey,
    timestamp::write as write_timestamp,
};
