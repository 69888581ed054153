//! A store in NATS JetStream: any process serves a job's monitor, and any worker runs it.
//!
//! [`NatsStore`] is the entry point. The [guide](crate::guide::nats) states what the store
//! guarantees.

mod active;
mod attempt;
mod barrier;
mod cancel;
mod changes;
mod charged;
mod chunks;
mod claim;
mod cleanup;
mod clock;
mod deliveries;
mod delivery_index;
mod depth;
mod dequeue;
mod envelope;
mod error;
mod finish;
mod follower;
mod index;
mod janitor_lease;
mod jetstream;
mod keys;
mod list;
mod lookup;
mod messages;
mod names;
mod options;
mod outbox;
mod outbox_leader;
mod outbox_lease;
mod output;
mod output_body;
mod output_view;
mod part;
mod parts;
mod process;
mod queue;
mod read;
mod record;
mod refresh;
mod report;
mod request;
mod request_body;
mod response;
mod result;
mod result_body;
mod retry;
mod scan;
mod store;
mod streams;
mod submit;
mod subscribers;
mod tasks;
mod watch;
mod writer;

pub use self::{
    changes::NatsChanges,
    claim::NatsClaim,
    dequeue::NatsTicket,
    error::NatsError,
    options::{NatsOptions, Storage},
    request::NatsRecord,
    store::NatsStore,
    writer::NatsWriter,
};
pub use crate::store::Rerun;
