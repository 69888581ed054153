//! HTTP semantics without jobs: header fields, conditions, bodies and preferences.

mod accept;
mod body;
mod conditional;
mod error;
mod headers;
mod hop_by_hop;
mod list;
mod names;
mod prefer;
mod status;

pub(crate) use self::{
    accept::Format,
    body::{buffered_size_hint, poll_bytes},
    conditional::{Selection, Validators, matches_if_none_match},
    error::BoxError,
    headers::RequestHeaders,
    hop_by_hop::strip_hop_by_hop,
    list::split,
    names::{ASYNC_RESULT, IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED, PREFER, PREFERENCE_APPLIED},
    prefer::Prefer,
    status::has_length,
};
