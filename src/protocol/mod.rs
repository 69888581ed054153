//! HTTP semantics without jobs: header fields, conditions, bodies and preferences.

#[cfg(feature = "server")]
mod accept;
#[cfg(any(feature = "follow", feature = "server"))]
mod authority;
mod body;
#[cfg(feature = "webhook")]
mod callback;
#[cfg(feature = "server")]
mod conditional;
mod error;
#[cfg(any(feature = "follow", feature = "server"))]
mod event_stream;
#[cfg(feature = "server")]
mod headers;
mod hop_by_hop;
#[cfg(feature = "server")]
mod json;
mod list;
#[cfg(feature = "server")]
mod multipart;
mod names;
#[cfg(feature = "server")]
mod prefer;
mod references;
#[cfg(any(feature = "follow", feature = "webhook"))]
mod retry_after;
#[cfg(feature = "server")]
mod shown_url;
mod size_hint;
#[cfg(feature = "server")]
mod status;

#[cfg(any(feature = "follow", feature = "server"))]
pub(crate) use self::authority::has_valid_authority;
#[cfg(feature = "webhook")]
pub(crate) use self::callback::callback_preference;
#[cfg(any(feature = "follow", feature = "server"))]
pub(crate) use self::event_stream::EventScanner;
#[cfg(feature = "follow")]
pub(crate) use self::list::split;
#[cfg(any(feature = "follow", feature = "webhook"))]
pub(crate) use self::retry_after::retry_after;
#[cfg(feature = "server")]
pub(crate) use self::{
    accept::{Format, prefers_message},
    conditional::{EntityTags, Selection, Validators, matches_if_none_match},
    headers::RequestHeaders,
    json::{is_json, sort_members},
    multipart::Multipart,
    names::{IDEMPOTENT_REPLAYED, LAST_EVENT_ID, RESULT_TARGET},
    prefer::Prefer,
    references::has_relative_references,
    shown_url::shown_url,
    size_hint::buffered_size_hint,
    status::{has_content, has_length, is_misleading_for_get},
};
pub(crate) use self::{
    body::{PollAllowance, poll_bytes},
    error::BoxError,
    hop_by_hop::strip_hop_by_hop,
    names::{ASYNC_RESULT, IDEMPOTENCY_KEY, PREFER, PREFERENCE_APPLIED, RESULT_ETAG_START},
    references::resolve_references,
    size_hint::prefixed_size_hint,
};
