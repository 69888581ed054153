//! Write transactions. Processes take turns.

use std::{
    fs::File,
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode};

use super::{
    backlog::Owed,
    clock::unix_now,
    disk::{Disk, give_back_pages},
    error::SqliteError,
    expire::has_expired,
    metrics,
    open::OpenedFile,
    peers::Peers,
    removed_files::RemovedFiles,
    shared::Shared,
    step::{Change, Effects, Step, Totals},
};

/// The time that emptying the log waits for the reads that use it.
const LOG_PATIENCE: Duration = Duration::from_millis(200);

/// Writes the file.
///
/// Each transaction begins with a lock of the file of turns: with SQLite's own lock alone, a busy
/// process starves another. It begins `IMMEDIATE`, since one that becomes a writer later fails if
/// another process has written meanwhile.
pub(super) struct FileWriter {
    shared: Arc<Shared>,
    connection: Connection,
    turn: File,
    totals: Totals,
    peers: Peers,
    disk: Disk,
    removed_files: RemovedFiles,
}

/// The state of this process once a transaction is committed.
struct Prepared {
    totals: Totals,
    last_change: i64,
}

impl FileWriter {
    pub(super) fn new(file: OpenedFile, shared: Arc<Shared>) -> Result<Self, SqliteError> {
        Ok(Self {
            totals: Totals::load(&file.connection)?,
            peers: Peers::new(&file.connection)?,
            disk: Disk::new(&file.path, shared.options.max_disk_bytes),
            removed_files: RemovedFiles::default(),
            shared,
            connection: file.connection,
            turn: file.turn,
        })
    }

    /// Commits what `act` does, and publishes what it has changed. `steps` is for the metrics.
    pub(super) fn transact(
        &mut self,
        steps: usize,
        act: impl FnOnce(&mut Step<'_>) -> Result<(), SqliteError>,
    ) -> Result<(), SqliteError> {
        let begun = Instant::now();
        let path = &self.shared.path;
        self.turn.lock().map_err(SqliteError::io(path))?;
        let committed = self.transact_in_turn(act);
        if let Err(error) = self.turn.unlock() {
            // The commit may have succeeded, so its steps must not run again.
            tracing::warn!(%error, "failed to release the turn to write the file of jobs");
        }
        metrics::committed(begun.elapsed(), steps, committed.is_ok());
        committed
    }

    fn transact_in_turn(
        &mut self,
        act: impl FnOnce(&mut Step<'_>) -> Result<(), SqliteError>,
    ) -> Result<(), SqliteError> {
        self.execute("BEGIN IMMEDIATE")?;
        let mut effects = Effects::default();
        let prepared = self.prepare_commit(&mut effects, act);
        let committed = prepared.and_then(|prepared| match self.execute("COMMIT") {
            Ok(()) => Ok(prepared),
            Err(error) => {
                // Unless the disk was full, the outcome of this commit is unknown.
                if error.sqlite_error_code() != Some(ErrorCode::DiskFull) {
                    let bodies = &self.shared.bodies;
                    effects
                        .added_files
                        .drain(..)
                        .for_each(|file| bodies.doubt(file));
                }
                Err(error.into())
            }
        });
        match committed {
            Ok(prepared) => {
                self.totals = prepared.totals;
                self.peers.set_last_change(prepared.last_change);
            }
            Err(error) => {
                self.roll_back();
                self.put_back(effects);
                return Err(error);
            }
        }
        let has_written = !effects.changes.is_empty();
        self.publish(effects);
        if has_written && let Err(error) = self.shared.bodies.settle_doubts(&self.connection) {
            tracing::warn!(%error, "failed to look for the rows of bodies");
        }
        Ok(())
    }

    /// Does everything of a transaction but its begin and its commit.
    fn prepare_commit(
        &mut self,
        effects: &mut Effects,
        act: impl FnOnce(&mut Step<'_>) -> Result<(), SqliteError>,
    ) -> Result<Prepared, SqliteError> {
        self.catch_up()?;
        let mut totals = self.totals;
        let is_full = self.is_full()?;
        act(&mut Step {
            connection: &self.connection,
            shared: &self.shared,
            now: unix_now(),
            totals: &mut totals,
            effects,
            is_full,
        })?;
        if !effects.added_files.is_empty() {
            self.shared.bodies.sync()?;
        }
        if totals != self.totals {
            totals.save(&self.connection)?;
        }
        let last_change = self.peers.record(&self.connection, effects)?;
        if !effects.changes.is_empty() {
            give_back_pages(&self.connection)?;
        }
        Ok(Prepared {
            totals,
            last_change,
        })
    }

    fn is_full(&self) -> Result<bool, SqliteError> {
        let Some(max) = self.shared.options.max_disk_bytes else {
            return Ok(false);
        };
        let database = self.disk.database_bytes(&self.connection)?;
        Ok(database + self.totals.file_bytes >= max)
    }

    fn execute(&self, statement: &str) -> Result<(), rusqlite::Error> {
        let mut statement = self.connection.prepare_cached(statement)?;
        statement.execute([]).map(drop)
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK")
        {
            tracing::warn!(%error, "failed to roll back a transaction");
        }
    }

    /// Returns to the backlog what a failed transaction took from it.
    fn put_back(&self, effects: Effects) {
        let backlog = &self.shared.backlog;
        for (job, report) in effects.reports {
            // If its call has reported again meanwhile, the job is in the backlog.
            if job.put_back(report) {
                backlog.add(Owed::Report(job));
            }
        }
        for (id, claim) in effects.returns {
            backlog.add(Owed::Return(id, claim));
        }
        for output in effects.outputs {
            self.shared.outputs.add(&output);
        }
    }

    fn publish(&mut self, effects: Effects) {
        for file in &effects.added_files {
            file.keep();
        }
        self.removed_files.add(effects.removed_files);
        for change in effects.changes {
            match change {
                Change::Held(row, claim) => self.shared.cache.hold(&row, claim),
                Change::Revised(row) => self.shared.cache.publish(&row),
                Change::Extended {
                    output,
                    run,
                    length,
                } => {
                    output.committed(run, length);
                    self.shared.cache.announce_output(output.id);
                }
                Change::Removed(id) => self.shared.cache.remove(id),
            }
        }
        if effects.has_work {
            self.shared.work_waiting.notify_waiters();
        }
        if effects.has_due_deliveries {
            self.shared.deliveries_due.notify_one();
        }
    }

    /// Returns `true` if [`remove_files`](Self::remove_files) has something to do.
    pub(super) fn has_removed_files(&self) -> bool {
        !self.removed_files.is_empty()
    }

    /// Removes some of the files that no row names any more.
    pub(super) fn remove_files(&mut self) {
        self.removed_files.remove_some(&self.shared.bodies.root);
    }

    fn catch_up(&mut self) -> Result<(), SqliteError> {
        if let Some(totals) = self.peers.catch_up(&self.connection, &self.shared)? {
            self.totals = totals;
        }
        Ok(())
    }

    /// Looks at what other processes have done. Takes over the jobs of those that have died.
    pub(super) fn look(&mut self) -> Result<(), SqliteError> {
        self.catch_up()?;
        if self.shared.options.is_observer {
            return Ok(());
        }
        for process in self.peers.dead() {
            self.transact_while(|step| step.take_over(process))?;
            if let Some(name) = self.peers.remove(process) {
                tracing::info!(process = name, "took over the jobs of a process that died");
                self.shared.bodies.root.sweep(&name, &self.connection)?;
            }
        }
        Ok(())
    }

    /// Commits steps until one returns `false`.
    fn transact_while(
        &mut self,
        mut act: impl FnMut(&mut Step<'_>) -> Result<bool, SqliteError>,
    ) -> Result<(), SqliteError> {
        let mut has_more = true;
        while has_more {
            self.transact(1, |step| {
                has_more = act(step)?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Leaves the file: hands back what is left, and removes what other processes need not know.
    pub(super) fn leave(&mut self) -> Result<(), SqliteError> {
        // A job whose claim was dropped is not one of a process that died. The data that its call
        // has flushed belongs to its end.
        self.transact_while(|step| Ok(step.write_outputs()? || step.work_off()?))?;
        let number = self.shared.number;
        self.transact_while(|step| step.take_over(number))?;
        while self.has_removed_files() {
            self.remove_files();
        }
        let bodies = &self.shared.bodies;
        bodies.root.sweep(&bodies.process, &self.connection)
    }

    /// Removes the bodies of dead processes that the file does not know. Holds the turn: a process
    /// that is opening the file has a directory without a lock for a moment.
    pub(super) fn sweep(&self) -> Result<(), SqliteError> {
        let path = &self.shared.path;
        self.turn.lock().map_err(SqliteError::io(path))?;
        let swept = self.sweep_in_turn();
        swept.and(self.turn.unlock().map_err(SqliteError::io(path)))
    }

    fn sweep_in_turn(&self) -> Result<(), SqliteError> {
        let bodies = &self.shared.bodies;
        let root = &bodies.root;
        for process in root.processes().map_err(SqliteError::io(root.path()))? {
            let lock = root.open_lock(&process);
            let lock = lock.map_err(SqliteError::io(root.file(&process)))?;
            let is_alive = lock.as_ref().is_some_and(|lock| lock.try_lock().is_err());
            if process != bodies.process && !is_alive {
                root.sweep(&process, &self.connection)?;
            }
        }
        Ok(())
    }

    /// Returns `true` if rows have expired.
    pub(super) fn has_expired(&self) -> Result<bool, SqliteError> {
        has_expired(&self.connection)
    }

    /// Returns the number of requests that wait for a worker.
    pub(super) fn waiting(&self) -> Result<u64, SqliteError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT count(*) FROM job WHERE process IS NULL AND finished_at IS NULL",
        )?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }

    /// Empties a log that has grown too large. Measures the disk for the metrics.
    pub(super) fn measure(&mut self) -> Result<(), SqliteError> {
        if self.disk.is_log_too_large() {
            self.empty_log()?;
        }
        if metrics::ARE_ENABLED {
            let disk = self.disk.database_bytes(&self.connection)? + self.totals.file_bytes;
            metrics::measured(disk, self.disk.log_bytes(), self.waiting()?);
        }
        Ok(())
    }

    /// Empties the log, in a turn: nothing else writes meanwhile.
    fn empty_log(&mut self) -> Result<(), SqliteError> {
        let path = &self.shared.path;
        self.turn.lock().map_err(SqliteError::io(path))?;
        let emptied = self.disk.empty_log(&self.connection, LOG_PATIENCE);
        emptied.and(self.turn.unlock().map_err(SqliteError::io(path)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::{
        JobId, Status,
        store::{
            NewJob, Revisions,
            sqlite::{
                bodies::{BodyFile, write_body},
                open::open,
                options::SqliteOptions,
                readers,
                row::JobRow,
            },
        },
    };

    fn new_writer(directory: &TempDir) -> FileWriter {
        let options = SqliteOptions::new();
        let file = open(&directory.path().join("jobs.db"), &options).expect("the file opens");
        let shared = Arc::new(Shared::new(&file, options));
        FileWriter::new(file, shared).expect("totals")
    }

    /// Makes SQLite find a violation when it commits what [`violate`] has written.
    fn allow_violations(writer: &FileWriter) {
        writer
            .connection
            .execute_batch(
                "PRAGMA foreign_keys = on;
                 CREATE TABLE parent (id INTEGER PRIMARY KEY);
                 CREATE TABLE child (
                    parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED
                 );",
            )
            .expect("tables");
    }

    fn violate(step: &Step<'_>) -> Result<(), SqliteError> {
        let insert = "INSERT INTO child VALUES (1)";
        step.connection.execute(insert, [])?;
        Ok(())
    }

    /// Inserts a job that the writer's process holds.
    fn insert_held(writer: &mut FileWriter, body: Option<&Arc<BodyFile>>) -> JobId {
        let mut row = JobRow::new(&NewJob::new(JobId::random()), true, &SqliteOptions::new());
        let claim = row.hold(writer.shared.number);
        let inserted = writer.transact(1, |step| {
            step.insert(&mut row, None, b"", b"body", body)?;
            step.hold(row.clone(), claim);
            Ok(())
        });
        inserted.expect("a commit");
        row.id
    }

    fn cancel(writer: &mut FileWriter, id: JobId) {
        let canceled = writer.transact(1, |step| step.cancel(id, &Revisions::Any).map(drop));
        canceled.expect("a commit");
    }

    fn status_in_memory(writer: &FileWriter, id: JobId) -> Status {
        let job = writer.shared.cache.get(id, unix_now());
        job.expect("a job in memory").status
    }

    #[test]
    fn change_of_another_process_is_seen_after_a_rollback() {
        let directory = TempDir::new().expect("a directory");
        let (mut one, mut other) = (new_writer(&directory), new_writer(&directory));
        let [id, revised] = [(); 2].map(|()| insert_held(&mut one, None));
        other.look().expect("the other process");
        allow_violations(&one);
        let failed = one.transact(1, |step| {
            step.cancel(revised, &Revisions::Any)?;
            violate(step)
        });
        assert!(failed.is_err());
        // The number of this change is that of the one before, which was rolled back.
        cancel(&mut other, id);
        one.look().expect("changes");
        assert_eq!(status_in_memory(&one, id), Status::Canceled);
        assert_eq!(status_in_memory(&one, revised), Status::Queued);
    }

    #[test]
    fn change_removed_before_the_first_look_is_seen() {
        let directory = TempDir::new().expect("a directory");
        let (mut one, mut other) = (new_writer(&directory), new_writer(&directory));
        let [id, later] = [(); 2].map(|()| insert_held(&mut one, None));
        other.look().expect("the other process");
        cancel(&mut other, id);
        cancel(&mut other, later);
        let trim = "DELETE FROM change WHERE number = 1";
        assert_eq!(other.connection.execute(trim, []).expect("a row"), 1);
        one.look().expect("changes");
        assert_eq!(status_in_memory(&one, id), Status::Canceled);
    }

    #[test]
    fn file_is_removed_outside_of_the_turn() {
        let directory = TempDir::new().expect("a directory");
        let mut writer = new_writer(&directory);
        let bodies = writer.shared.bodies.clone();
        let count = || {
            let left = fs::read_dir(bodies.root.file(&bodies.process)).expect("a directory");
            left.count() - 1 // the lock
        };
        let body = write_body(&bodies, b"body").expect("a body");
        let id = insert_held(&mut writer, Some(&body));
        cancel(&mut writer, id);
        assert_eq!(count(), 1);
        while writer.has_removed_files() {
            writer.remove_files();
        }
        assert_eq!(count(), 0);
    }

    #[test]
    fn large_log_is_emptied() {
        let directory = TempDir::new().expect("a directory");
        let mut writer = new_writer(&directory);
        let reader = readers::open(&writer.shared.path).expect("a reader");
        let read = "BEGIN; SELECT count(*) FROM job";
        reader.execute_batch(read).expect("a read");
        // The read keeps what was written after it in the log.
        let fill = "CREATE TABLE filler (body);
            INSERT INTO filler VALUES (zeroblob(65 * 1024 * 1024))";
        writer.connection.execute_batch(fill).expect("room");
        reader.execute_batch("COMMIT").expect("a read");
        assert!(writer.disk.is_log_too_large());
        writer.measure().expect("a checkpoint");
        assert_eq!(writer.disk.log_bytes(), 0);
    }

    /// The rows of a commit that failed are in the log until another commit overwrites them.
    #[test]
    fn doubtful_body_is_kept_until_the_next_write() {
        let directory = TempDir::new().expect("a directory");
        let mut writer = new_writer(&directory);
        allow_violations(&writer);
        let shared = writer.shared.clone();
        let body = write_body(&shared.bodies, b"body").expect("a body");
        let path = shared.bodies.root.file(&body.name);
        let failed = writer.transact(1, move |step| {
            step.add_file(&body, 4);
            violate(step)
        });
        assert!(failed.is_err());
        writer.look().expect("no change");
        writer.transact(1, |_| Ok(())).expect("a commit");
        assert!(fs::exists(&path).expect("a directory"));
        insert_held(&mut writer, None);
        assert!(!fs::exists(&path).expect("a directory"));
    }
}
