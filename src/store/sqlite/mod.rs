//! A store in one SQLite file: accepted work survives its process, on one machine.
//!
//! [`SqliteStore`] is the entry point. The [guide](crate::guide::sqlite) states what the store
//! guarantees.

mod accept;
mod backlog;
mod backup;
mod bodies;
mod cache;
mod cancel;
mod changes;
mod claim;
mod clock;
mod delivery_row;
mod dequeue;
mod disk;
mod error;
mod expire;
mod file_task;
mod finish;
mod lease;
mod lookup;
mod metrics;
mod open;
mod options;
mod outbox;
mod output;
mod output_file;
mod peers;
mod process;
mod publish;
mod read;
mod reader;
mod readers;
mod record;
mod removed_files;
mod response;
mod row;
mod schema;
mod settle;
mod shared;
mod step;
mod store;
mod takeover;
mod task;
mod thread;
mod tickets;
mod transaction;
mod unwritten;
mod work_off;
mod writer;

pub use self::{
    changes::SqliteChanges, claim::SqliteClaim, dequeue::SqliteTicket, error::SqliteError,
    options::SqliteOptions, record::SqliteRecord, store::SqliteStore, writer::SqliteWriter,
};
