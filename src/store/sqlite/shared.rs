//! The state that the writer's thread and the clones of a store share.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

use super::{
    backlog::Backlog, bodies::OwnBodies, cache::Cache, open::OpenedFile, options::SqliteOptions,
    output::OutputQueue,
};

/// The state that the writer's thread shares with the clones.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) options: SqliteOptions,
    pub(super) bodies: Arc<OwnBodies>,
    /// The number of this process in the file.
    pub(super) number: i64,
    pub(super) cache: Cache,
    pub(super) backlog: Backlog,
    pub(super) outputs: OutputQueue,
    /// Notified if requests wait for a worker.
    pub(super) work_waiting: Notify,
    /// Notified if deliveries have become due. It keeps one notification, for the next look.
    pub(super) deliveries_due: Notify,
    /// Set by the first worker. It only decides about a log line, so `Relaxed` is enough.
    has_worker: AtomicBool,
}

impl Shared {
    pub(super) fn new(file: &OpenedFile, options: SqliteOptions) -> Self {
        Self {
            path: file.path.clone(),
            options,
            bodies: file.bodies.clone(),
            number: file.number,
            cache: Cache::default(),
            backlog: Backlog::default(),
            outputs: OutputQueue::default(),
            work_waiting: Notify::new(),
            deliveries_due: Notify::new(),
            has_worker: AtomicBool::new(false),
        }
    }

    pub(super) fn has_worker(&self) -> bool {
        self.has_worker.load(Ordering::Relaxed)
    }

    pub(super) fn set_has_worker(&self) {
        self.has_worker.store(true, Ordering::Relaxed);
    }
}
