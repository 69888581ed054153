use std::sync::Arc;

use crate::{
    gate::{Refused, Slot},
    idempotency::{Fingerprint, Key},
    jobs::Registry,
    negotiate::Format,
    owner::Owner,
    prefer::Prefer,
    terms::Terms,
    when::Plan,
};

/// What was found out from a request's head.
pub(crate) struct Intake<St> {
    pub(crate) registry: Arc<Registry<St>>,
    pub(crate) terms: Arc<Terms>,
    pub(crate) slot: Result<Slot, Refused>,
    pub(crate) plan: Plan,
    /// Whether the answer must be a 202, or whatever stands in its way: else the call stays inline.
    pub(crate) is_owed: bool,
    pub(crate) prefer: Prefer,
    pub(crate) format: Format,
    pub(crate) bound: Option<Box<Bound>>,
}

/// To whom and to which key a request is bound; few are.
pub(crate) struct Bound {
    pub(crate) owner: Option<Owner>,
    pub(crate) key: Option<Key>,
    /// What the key is used for, once the body has been read.
    pub(crate) fingerprint: Option<Fingerprint>,
}
