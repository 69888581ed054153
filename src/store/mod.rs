//! Keeps jobs: the interface between the layer and a store.
//!
//! A store is the one place that decides a job's end. The layer runs calls and writes HTTP. The
//! store makes accepting atomic, lets the first end of a job win, and keeps its result.
//! [`MemoryStore`] does so in this process. A [`Queue`] is a store whose jobs any process may run;
//! the features `sqlite` and `nats` have one each.

#[cfg(feature = "conformance")]
pub mod conformance;
mod delivery;
mod interface;
mod memory;
#[cfg(feature = "nats")]
pub mod nats;
mod new_job;
mod outbox;
mod outcome;
mod queue;
mod result;
mod revisions;
mod room;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod stored;

pub use self::{
    delivery::{
        Attempt, AttemptFailure, DELIVERED_RETENTION, Delivery, DeliveryId, DeliveryState,
        FAILED_RETENTION, ParseDeliveryIdError, Settlement,
    },
    interface::{Store, StoreFuture},
    memory::{MemoryChanges, MemoryClaim, MemoryStore, MemoryWriter},
    new_job::{NewJob, NewKey, default_key_retention},
    outbox::{
        DeliveryCursor, DeliveryFilter, DeliveryPage, DueDeliveries, Outbox, OutboxFuture,
        OutboxStats, SharedOutbox,
    },
    outcome::{Acceptance, End, Finished, KeyOutcome, Lookup, News, Outcome, Report},
    queue::{Queue, Work},
    result::{NoRoom, Reading, ResultBody, Writer},
    revisions::Revisions,
    room::{ReceiverRoom, ReceiverStanding, SendRoom},
    stored::{CarriedExtensions, Rerun, StoredDelivery, StoredFields, StoredRequest},
};
#[cfg(feature = "webhook")]
pub(crate) use self::{
    delivery::{notification, receiver},
    room::{FreeRoom, KnownReceivers},
};
pub use crate::{
    job::{CallbackTarget, Fingerprint, Key},
    limit::{
        BodyBuffer, Budget, BufferedBody, Charge, MAX_FIELD_VALUES, Purpose, ResponseRoom, compact,
        compact_fields, fields_price, progress_price, request_price,
    },
};
