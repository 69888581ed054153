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
mod progress;
mod scope;
mod snapshot;
mod state;
mod timestamp;
mod title;

pub use self::{
    callback::CallbackTarget,
    cursor::{Cursor, ParseCursorError},
    filter::{Filter, Page},
    handle::JobHandle,
    id::{JobId, ParseJobIdError},
    key::{Fingerprint, Key},
    owner::Owner,
    progress::Progress,
    snapshot::{Failure, ResponseHead, Snapshot},
    state::{ErrorCode, Event, ParseErrorCodeError, ParseStatusError, Status},
};
pub(crate) use self::{
    document::{document, percent},
    id::IdText,
    key::InvalidKey,
    scope::{CallScope, HandleGuard},
    timestamp::write as write_timestamp,
    title::title,
};
