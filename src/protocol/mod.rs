//! HTTP alone: fields of requests and responses, with no word of jobs.

mod accept;
mod headers;
mod prefer;

pub(crate) use self::{
    accept::Format,
    headers::Mentions,
    prefer::{PREFER, PREFERENCE_APPLIED, Prefer, split},
};
