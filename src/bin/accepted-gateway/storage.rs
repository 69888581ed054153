//! The flags of a gateway whose jobs outlive it.

#[cfg(feature = "sqlite")]
use std::path::{Path, PathBuf};
#[cfg(any(feature = "nats", feature = "sqlite"))]
use std::time::Duration;

use clap::Args;
#[cfg(feature = "nats")]
use tower_accepted::store::nats::NatsOptions;
#[cfg(feature = "sqlite")]
use tower_accepted::store::sqlite::SqliteOptions;

#[cfg(feature = "nats")]
use crate::choices::Role;
#[cfg(any(feature = "nats", feature = "sqlite"))]
use crate::peer::Peer;

#[cfg(any(feature = "nats", feature = "sqlite"))]
const DURABLE_JOBS: &str = "Durable jobs";

/// Where jobs are kept, and which of them this process runs. By default they are in memory.
#[derive(Debug, Args)]
pub(crate) struct StorageFlags {
    /// Keep jobs in NATS JetStream at nats://HOST[:PORT][,…], shared with other gateways
    ///
    /// Start all of them with the same upstream, limits and --trust-forwarded. If one crashes, the
    /// others still run the requests that it accepted.
    #[cfg(feature = "nats")]
    #[arg(
        long,
        value_name = "URL",
        group = "place",
        help_heading = DURABLE_JOBS,
        verbatim_doc_comment
    )]
    pub(crate) nats: Option<String>,

    // clap skips `requires` for a flag that conflicts with a given one, so the flags of one store
    // also conflict with the other store.
    /// The number of servers on which JetStream stores each job, 1 to 5
    #[cfg(feature = "nats")]
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        requires = "nats",
        value_parser = clap::value_parser!(u8).range(1..=5),
        help_heading = DURABLE_JOBS
    )]
    #[cfg_attr(feature = "sqlite", arg(conflicts_with = "store"))]
    replicas: u8,

    /// The work of this process
    #[cfg(feature = "nats")]
    #[arg(
        long,
        value_enum,
        value_name = "ROLE",
        default_value = "both",
        requires = "nats",
        help_heading = DURABLE_JOBS
    )]
    #[cfg_attr(feature = "sqlite", arg(conflicts_with = "store"))]
    pub(crate) role: Role,

    /// Keep jobs in this SQLite file, shared with other gateways on this machine
    ///
    /// The gateway creates the file if there is none. Start all gateways of a file with the same
    /// upstream, limits and --trust-forwarded. If one crashes, the others or the next one run the
    /// requests that it accepted. A call that had begun runs again only if its method is
    /// idempotent or it has an Idempotency-Key; any other job fails as lost. At the end of
    /// --drain-secs, a shutdown hands back every call that has not begun or may run again.
    ///
    /// Bodies over 256 KiB are files beside it. A large result passes through memory in parts; a
    /// request body does not. Each call may take a second file descriptor for a file, so half as
    /// many calls run at a time.
    #[cfg(feature = "sqlite")]
    #[arg(
        long,
        value_name = "PATH",
        group = "place",
        help_heading = DURABLE_JOBS,
        verbatim_doc_comment
    )]
    store: Option<PathBuf>,

    /// The bytes on the disk at which a request that must become a job is answered 503
    ///
    /// The file, its log and the files of large bodies count. Free pages of the file and bodies
    /// that are still being written do not. Default: no limit. Running jobs may exceed it, since
    /// their results are stored.
    #[cfg(feature = "sqlite")]
    #[arg(
        long,
        value_name = "BYTES",
        requires = "store",
        value_parser = clap::value_parser!(u64).range(1..),
        help_heading = DURABLE_JOBS,
        verbatim_doc_comment
    )]
    #[cfg_attr(feature = "nats", arg(conflicts_with = "nats"))]
    max_disk_bytes: Option<u64>,

    /// The number of accepted requests that a worker runs at a time
    #[cfg_attr(
        feature = "sqlite",
        doc = "",
        doc = " With --store, each gateway runs the requests that it accepts.",
        doc = " Its worker runs those that other gateways left unfinished."
    )]
    #[cfg(any(feature = "nats", feature = "sqlite"))]
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        requires = "place",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = DURABLE_JOBS,
        verbatim_doc_comment
    )]
    concurrency: u32,
}

impl StorageFlags {
    /// Returns the name of the place that keeps the jobs, or `None` if only memory does.
    pub(crate) fn place(&self) -> Option<String> {
        #[cfg(feature = "nats")]
        if self.nats.is_some() {
            // Without the URL, which may have a password.
            return Some("NATS JetStream".to_owned());
        }
        #[cfg(feature = "sqlite")]
        if let Some(path) = &self.store {
            return Some(path.display().to_string());
        }
        None
    }

    /// Returns `true` if large bodies are in files.
    pub(crate) fn has_body_files(&self) -> bool {
        #[cfg(feature = "sqlite")]
        if self.store.is_some() {
            return true;
        }
        false
    }

    /// Returns `true` if this process also runs requests that others accepted.
    #[cfg(any(feature = "nats", feature = "sqlite"))]
    pub(crate) fn runs_jobs(&self) -> bool {
        #[cfg(feature = "nats")]
        if self.nats.is_some() {
            return self.role == Role::Both;
        }
        true
    }

    /// Returns the number of requests that a worker runs at a time, if calls have no lower limit.
    #[cfg(any(feature = "nats", feature = "sqlite"))]
    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency.try_into().unwrap_or(usize::MAX)
    }

    /// Returns the settings of the JetStream store.
    #[cfg(feature = "nats")]
    pub(crate) fn nats_options(&self, retain: Duration) -> NatsOptions {
        NatsOptions::new()
            .replicas(self.replicas.into())
            .retain(retain)
            .carry::<Peer>("peer")
    }

    /// Returns the file of jobs, if there is one.
    #[cfg(feature = "sqlite")]
    pub(crate) fn file(&self) -> Option<&Path> {
        self.store.as_deref()
    }

    /// Returns the settings of the SQLite store.
    #[cfg(feature = "sqlite")]
    pub(crate) fn sqlite_options(&self, retain: Duration) -> SqliteOptions {
        SqliteOptions::new()
            .retain(retain)
            .max_disk_bytes(self.max_disk_bytes)
            .carry::<Peer>("peer")
    }
}
