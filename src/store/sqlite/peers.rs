//! Follows the changes of other processes, and notices their deaths.

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    bodies::BodyRoot,
    error::SqliteError,
    row::JobRow,
    shared::Shared,
    step::{Change, Effects, Totals},
};
use crate::JobId;

/// The age at which entries of the table `change` are removed. A process that was stopped for
/// longer reloads every job that it has in memory.
const CHANGE_RETENTION: Duration = Duration::from_secs(60);

/// The entry of the table `change` that stands for deliveries that have become due. No job has this
/// id.
const DUE_DELIVERIES: &str = "deliveries";

/// The maximum number of entries that one transaction removes.
const TRIM_ROWS: usize = 512;

/// The other processes that use the file.
pub(super) struct Peers {
    /// `PRAGMA data_version` at the last look: it differs once another connection has committed.
    data_version: i64,
    /// The last entry of the table `change` that was seen.
    last_change: i64,
    /// Entries of the table `change` to remove: all below a number, from a time on.
    trim: Option<(i64, Instant)>,
    /// The processes that may be alive, by number.
    peers: HashMap<i64, Peer>,
}

/// Another process.
struct Peer {
    name: String,
    /// `None` if there is no lock file: the process is dead.
    lock: Option<File>,
    /// Set once its lock was taken here. Windows refuses a lock to the handle that has it.
    is_locked: bool,
}

impl Peers {
    /// Begins to follow the changes of other processes.
    pub(super) fn new(connection: &Connection) -> Result<Self, SqliteError> {
        let last = "SELECT coalesce(max(number), 0) FROM change";
        Ok(Self {
            data_version: -1,
            last_change: connection.query_row(last, [], |row| row.get(0))?,
            trim: None,
            peers: HashMap::new(),
        })
    }

    /// Publishes what other processes have committed since the last look. Returns the file's totals
    /// if there is something new.
    pub(super) fn catch_up(
        &mut self,
        connection: &Connection,
        shared: &Shared,
    ) -> Result<Option<Totals>, SqliteError> {
        let mut statement = connection.prepare_cached("PRAGMA data_version")?;
        let data_version = statement.query_row([], |row| row.get(0))?;
        if data_version == self.data_version {
            return Ok(None);
        }
        let totals = Totals::load(connection)?;
        self.refresh_peers(connection, shared)?;
        self.follow_changes(connection, shared)?;
        self.data_version = data_version;
        shared.work_waiting.notify_waiters();
        Ok(Some(totals))
    }

    fn refresh_peers(
        &mut self,
        connection: &Connection,
        shared: &Shared,
    ) -> Result<(), SqliteError> {
        let mut statement =
            connection.prepare_cached("SELECT number, name FROM process WHERE number <> ?1")?;
        let rows = statement.query_map([shared.number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut found: HashMap<i64, String> = rows.collect::<Result<_, _>>()?;
        self.peers
            .retain(|number, _| found.remove(number).is_some());
        for (number, name) in found {
            let peer = Peer::open(&shared.bodies.root, name)?;
            self.peers.insert(number, peer);
        }
        Ok(())
    }

    fn follow_changes(
        &mut self,
        connection: &Connection,
        shared: &Shared,
    ) -> Result<(), SqliteError> {
        let mut statement = connection
            .prepare_cached("SELECT number, id FROM change WHERE number >= ?1 ORDER BY number")?;
        let rows = statement.query_map([self.last_change], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let rows: Vec<(i64, String)> = rows.collect::<Result<_, _>>()?;
        // The last one that was seen is still there, unless entries were removed since. Numbers
        // begin at 1.
        let is_complete = match rows.first() {
            Some((first, _)) => *first <= self.last_change + 1,
            None => self.last_change == 0,
        };
        let new = rows.iter().filter(|(number, _)| *number > self.last_change);
        let new = new.map(|(_, id)| id);
        let has_due_deliveries = !is_complete || new.clone().any(|id| id == DUE_DELIVERIES);
        let changed: Vec<JobId> = if is_complete {
            new.filter_map(|id| id.parse().ok()).collect()
        } else {
            shared.cache.ids()
        };
        for id in changed {
            refresh(connection, shared, id)?;
        }
        if has_due_deliveries {
            shared.deliveries_due.notify_one();
        }
        self.last_change = rows.last().map_or(self.last_change, |(number, _)| *number);
        Ok(())
    }

    /// Records for other processes which jobs this one changes, and whether deliveries have become
    /// due. Returns the number of the last entry, for [`set_last_change`](Self::set_last_change).
    pub(super) fn record(
        &mut self,
        connection: &Connection,
        effects: &Effects,
    ) -> Result<i64, SqliteError> {
        let mut last_change = self.last_change;
        let is_empty = effects.changes.is_empty() && !effects.has_due_deliveries;
        if self.peers.is_empty() || is_empty {
            return Ok(last_change);
        }
        let mut statement = connection.prepare_cached("INSERT INTO change (id) VALUES (?1)")?;
        for id in effects.changes.iter().filter_map(Change::shared) {
            last_change = statement.insert([id.to_string()])?;
        }
        if effects.has_due_deliveries {
            last_change = statement.insert([DUE_DELIVERIES])?;
        }
        self.trim(connection)?;
        Ok(last_change)
    }

    /// Skips the entries of this process, once they are committed. After a rollback, another
    /// process would use their numbers.
    pub(super) fn set_last_change(&mut self, number: i64) {
        self.last_change = number;
    }

    /// Removes old entries of the table `change`. The last entry stays: SQLite numbers the next one
    /// after it, so no number is used twice.
    fn trim(&mut self, connection: &Connection) -> Result<(), SqliteError> {
        let now = Instant::now();
        let next = (self.last_change, now + CHANGE_RETENTION);
        let (below, from) = *self.trim.get_or_insert(next);
        if now < from {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(
            "DELETE FROM change WHERE number IN \
             (SELECT number FROM change WHERE number < ?1 ORDER BY number LIMIT ?2)",
        )?;
        if statement.execute((below, TRIM_ROWS))? < TRIM_ROWS {
            self.trim = None;
        }
        Ok(())
    }

    /// Returns the numbers of those that have died.
    pub(super) fn dead(&mut self) -> Vec<i64> {
        let peers = self.peers.iter_mut();
        let dead = peers.filter_map(|(&number, peer)| peer.is_dead().then_some(number));
        dead.collect()
    }

    /// Removes a process whose jobs were taken over, and returns its name.
    pub(super) fn remove(&mut self, number: i64) -> Option<String> {
        self.peers.remove(&number).map(|peer| peer.name)
    }
}

/// Publishes a job as it is in the file, if it is in memory.
fn refresh(connection: &Connection, shared: &Shared, id: JobId) -> Result<(), SqliteError> {
    if shared.cache.contains(id) {
        // Announces its output, too.
        match JobRow::load(connection, id)? {
            Some(row) => shared.cache.publish(&row),
            None => shared.cache.remove(id),
        }
    }
    Ok(())
}

impl Peer {
    fn open(root: &BodyRoot, name: String) -> Result<Self, SqliteError> {
        let path = root.file(&name);
        let lock = root.open_lock(&name).map_err(SqliteError::io(path))?;
        Ok(Self {
            name,
            lock,
            is_locked: false,
        })
    }

    /// Returns `true` if the process has died: the kernel has released its lock.
    fn is_dead(&mut self) -> bool {
        let Some(lock) = self.lock.as_ref().filter(|_| !self.is_locked) else {
            return true;
        };
        match lock.try_lock() {
            // The lock is kept until the jobs are taken over.
            Ok(()) => {
                self.is_locked = true;
                true
            }
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => {
                let process = &self.name;
                tracing::warn!(%error, process, "failed to check whether a process is alive");
                false
            }
        }
    }
}
