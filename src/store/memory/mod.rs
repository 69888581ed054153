//! Keeps jobs in this process's memory.

mod body;
mod changes;
mod claim;
mod clock;
mod creation;
mod due_receivers;
mod ended;
mod evict;
mod id_hasher;
mod keys;
mod list;
mod live;
#[cfg(test)]
mod model;
mod order;
mod outbox;
mod outbox_state;
mod packed;
mod reader;
mod reading;
mod reaper;
mod store;
mod table;
mod tombstones;
mod unfinished;
mod unfinished_body;
mod writer;

pub use self::{
    changes::MemoryChanges, claim::MemoryClaim, store::MemoryStore, writer::MemoryWriter,
};
