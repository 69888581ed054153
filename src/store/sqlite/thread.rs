//! The thread that writes the file: it commits the steps of many tasks at a time.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use super::{
    error::SqliteError,
    open::OpenedFile,
    shared::Shared,
    step::Step,
    task::{Message, Task},
    transaction::FileWriter,
};

/// The maximum number of steps in a transaction.
const MAX_STEPS: usize = 256;

/// The time between two looks at what other processes do.
const LOOK_INTERVAL: Duration = Duration::from_millis(40);

/// The delay of work in the backlog, during which later reports replace earlier ones.
const BACKLOG_DELAY: Duration = Duration::from_millis(20);

/// The time between two transactions for outputs alone. Any other transaction takes them along.
const OUTPUT_INTERVAL: Duration = Duration::from_millis(5);

/// The time before the next look, or before work in the backlog is done again, after a failure.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The time between two looks for expired rows.
const EXPIRE_INTERVAL: Duration = Duration::from_millis(500);

/// The time between two measurements of the disk.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// The time after which a process without a worker logs how many requests wait for one.
const WORKER_PATIENCE: Duration = Duration::from_secs(5);

/// The thread that writes the file.
pub(super) struct WriterThread {
    writer: FileWriter,
    shared: Arc<Shared>,
    receiver: Receiver<Message>,
    chores: Chores,
    next_look: Instant,
    next_expiry: Instant,
    next_measure: Instant,
    /// When to log that a worker is missing; `None` once it is logged.
    worker_due: Option<Instant>,
}

/// Periodic work that shares the transactions of tasks.
struct Chores {
    backlog_due: Option<Instant>,
    outputs_due: Option<Instant>,
    /// The earliest time of the next transaction for outputs alone.
    outputs_from: Instant,
    /// Set if rows may have expired.
    has_expired: bool,
}

impl WriterThread {
    /// Reads what the file has at the start. Takes over the jobs of processes that have died.
    pub(super) fn new(
        file: OpenedFile,
        shared: Arc<Shared>,
        receiver: Receiver<Message>,
    ) -> Result<Self, SqliteError> {
        let now = Instant::now();
        let mut writer = FileWriter::new(file, shared.clone())?;
        writer.look()?;
        if !shared.options.is_observer {
            writer.sweep()?;
        }
        Ok(Self {
            writer,
            shared,
            receiver,
            chores: Chores {
                backlog_due: None,
                outputs_due: None,
                outputs_from: now,
                has_expired: false,
            },
            next_look: now,
            next_expiry: now,
            next_measure: now,
            worker_due: Some(now + WORKER_PATIENCE),
        })
    }

    /// Runs until the last handle of the store is dropped.
    pub(super) fn run(mut self) {
        loop {
            let timeout = self.next_wake().saturating_duration_since(Instant::now());
            let mut tasks = Vec::new();
            match self.receiver.recv_timeout(timeout) {
                Ok(message) => self.receive(message, &mut tasks),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return log_failure("leave the file", self.writer.leave());
                }
            }
            while tasks.len() < MAX_STEPS
                && let Ok(message) = self.receiver.try_recv()
            {
                self.receive(message, &mut tasks);
            }
            self.look_for_expired();
            if !tasks.is_empty() || self.chores.are_due() {
                self.commit(tasks);
            }
            self.writer.remove_files();
            let now = Instant::now();
            if now >= self.next_look {
                let looked = self.writer.look();
                self.next_look = now
                    + if looked.is_ok() {
                        LOOK_INTERVAL
                    } else {
                        RETRY_DELAY
                    };
                log_failure("follow other processes", looked);
                self.warn_without_worker(now);
            }
            if now >= self.next_measure {
                self.next_measure = now + MEASURE_INTERVAL;
                log_failure("measure the file", self.writer.measure());
            }
        }
    }

    fn receive(&mut self, message: Message, tasks: &mut Vec<Box<dyn Task>>) {
        match message {
            Message::Task(task) if task.is_wanted() => tasks.push(task),
            Message::Task(_) => {}
            Message::Owed => {
                let due = &mut self.chores.backlog_due;
                due.get_or_insert_with(|| Instant::now() + BACKLOG_DELAY);
            }
            // Another transaction may have taken them along.
            Message::Outputs if self.shared.outputs.is_empty() => {}
            Message::Outputs => {
                let from = self.chores.outputs_from;
                self.chores.outputs_due.get_or_insert(from);
            }
        }
    }

    fn next_wake(&self) -> Instant {
        if self.chores.has_expired || self.writer.has_removed_files() {
            return Instant::now();
        }
        let next = self.next_look.min(self.next_expiry);
        let next = next.min(self.next_measure);
        let due = [self.chores.backlog_due, self.chores.outputs_due];
        due.into_iter().flatten().fold(next, Instant::min)
    }

    /// Looks for expired rows without a transaction, so that an idle process takes no turn.
    fn look_for_expired(&mut self) {
        let now = Instant::now();
        if now < self.next_expiry {
            return;
        }
        self.next_expiry = now + EXPIRE_INTERVAL;
        if self.shared.options.is_observer {
            return;
        }
        match self.writer.has_expired() {
            Ok(has_expired) => self.chores.has_expired = has_expired,
            Err(error) => log_failure("look for expired jobs", Err(error)),
        }
    }

    /// Commits tasks in one transaction. If that fails, each task is retried in its own, so that a
    /// failing step does not fail the others.
    fn commit(&mut self, mut tasks: Vec<Box<dyn Task>>) {
        let chores = &mut self.chores;
        let committed = self.writer.transact(tasks.len(), |step| {
            // The data that a call flushed before the end of its job belongs to the job.
            chores.write_outputs(step)?;
            for task in &mut tasks {
                task.run(step)?;
            }
            chores.run(step)
        });
        let Err(error) = committed else {
            return tasks.into_iter().for_each(|task| task.conclude(Ok(())));
        };
        self.chores.postpone(!self.shared.outputs.is_empty());
        if tasks.is_empty() {
            return log_failure(
                "write reports and outputs, return jobs or expire jobs",
                Err(error),
            );
        }
        if matches!(error, SqliteError::Busy) {
            // Another program has the lock. Each further try would wait for it as long again.
            let tasks = tasks.into_iter();
            return tasks.for_each(|task| task.conclude(Err(SqliteError::Busy)));
        }
        for mut task in tasks.into_iter().filter(|task| task.is_wanted()) {
            let committed = self.writer.transact(1, |step| task.run(step));
            task.conclude(committed);
        }
    }

    /// Logs once if requests wait and this process has no worker.
    fn warn_without_worker(&mut self, now: Instant) {
        let has_worker = self.shared.has_worker() || self.shared.options.is_observer;
        if has_worker || self.worker_due.is_none_or(|due| now < due) {
            return;
        }
        // Not again for a while if none waits now.
        self.worker_due = Some(now + WORKER_PATIENCE);
        match self.writer.waiting() {
            Ok(0) => {}
            Ok(waiting) => {
                self.worker_due = None;
                tracing::warn!(
                    waiting,
                    "requests wait for a worker, and this process has none: run `Jobs::worker`"
                );
            }
            Err(error) => log_failure("count waiting requests", Err(error)),
        }
    }
}

impl Chores {
    fn are_due(&self) -> bool {
        let now = Instant::now();
        let due = [self.backlog_due, self.outputs_due];
        self.has_expired || due.into_iter().flatten().any(|due| now >= due)
    }

    /// Writes what calls have flushed, whether it is due or not.
    fn write_outputs(&mut self, step: &mut Step<'_>) -> Result<(), SqliteError> {
        let is_left = step.write_outputs()?;
        let now = Instant::now();
        self.outputs_due = is_left.then_some(now);
        self.outputs_from = now + OUTPUT_INTERVAL;
        Ok(())
    }

    /// Does work in the backlog and removes what has expired, if that is due.
    fn run(&mut self, step: &mut Step<'_>) -> Result<(), SqliteError> {
        let now = Instant::now();
        if self.backlog_due.is_some_and(|due| now >= due) {
            let is_left = step.work_off()?;
            self.backlog_due = is_left.then_some(now);
        }
        if self.has_expired {
            self.has_expired = step.expire()?;
        }
        Ok(())
    }

    /// Lets some time pass after a failure. Work may have been put back, whether some was due or
    /// not.
    fn postpone(&mut self, has_outputs: bool) {
        self.has_expired = false;
        let later = Instant::now() + RETRY_DELAY;
        self.backlog_due = Some(later);
        self.outputs_due = has_outputs.then_some(later);
    }
}

fn log_failure(what: &str, done: Result<(), SqliteError>) {
    if let Err(error) = done {
        tracing::warn!(%error, "failed to {what}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rusqlite::Connection;
    use tempfile::TempDir;

    use super::*;
    use crate::{
        JobId, Progress,
        store::{
            NewJob,
            sqlite::{
                backlog::Owed, cache::UnwrittenReport, open::open, options::SqliteOptions,
                row::JobRow,
            },
        },
    };

    fn new_thread(directory: &TempDir, options: SqliteOptions) -> WriterThread {
        let file = open(&directory.path().join("jobs.db"), &options).expect("the file opens");
        let shared = Arc::new(Shared::new(&file, options));
        // Without a sender, since the thread does not run.
        let (_, receiver) = mpsc::channel();
        WriterThread::new(file, shared, receiver).expect("a thread")
    }

    /// Inserts a job that this process holds. Returns its claim.
    fn insert_held(thread: &mut WriterThread) -> (JobRow, i64) {
        let mut row = JobRow::new(&NewJob::new(JobId::random()), true, &SqliteOptions::new());
        let claim = row.hold(thread.shared.number);
        let inserted = thread.writer.transact(1, |step| {
            step.insert(&mut row, None, b"", b"", None)?;
            step.hold(row.clone(), claim);
            Ok(())
        });
        inserted.expect("a commit");
        (row, claim)
    }

    fn open_beside(directory: &TempDir) -> Connection {
        Connection::open(directory.path().join("jobs.db")).expect("the file opens")
    }

    #[test]
    fn report_is_written_after_a_failed_transaction() {
        let directory = TempDir::new().expect("a directory");
        let mut thread = new_thread(&directory, SqliteOptions::new());
        let (row, claim) = insert_held(&mut thread);
        let (job, _) = thread.shared.cache.held(row.id, claim);
        let report = UnwrittenReport {
            progress: Some(Progress {
                message: Some("half".into()),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(job.report(report));
        thread.shared.backlog.add(Owed::Report(job));
        // Reports are written first, and then a row of the same transaction cannot be removed.
        let other = open_beside(&directory);
        other
            .execute_batch(
                "INSERT INTO tombstone (id, expires_at) VALUES ('id', 1);
                 CREATE TRIGGER fail BEFORE DELETE ON tombstone
                 BEGIN SELECT RAISE(ABORT, 'no'); END;",
            )
            .expect("a trigger");
        for _ in 0..2 {
            thread.chores.backlog_due = Some(Instant::now());
            thread.chores.has_expired = true;
            thread.commit(Vec::new());
        }
        assert!(thread.chores.backlog_due.is_some());
        // It is in the backlog once, however often a transaction fails.
        let (owed, _) = thread.shared.backlog.take(usize::MAX);
        let [Owed::Report(job)] = &owed[..] else {
            panic!("one report: {owed:?}");
        };
        thread.shared.backlog.add(Owed::Report(job.clone()));
        other.execute_batch("DROP TRIGGER fail").expect("a trigger");
        thread.chores.backlog_due = Some(Instant::now());
        thread.commit(Vec::new());
        let message = "SELECT message FROM job";
        let message: String = other.query_row(message, [], |row| row.get(0)).expect("it");
        assert_eq!(message, "half");
        assert!(!thread.chores.are_due());
    }

    #[test]
    fn dropped_claim_returns_its_job_after_a_failure() {
        let directory = TempDir::new().expect("a directory");
        let mut thread = new_thread(&directory, SqliteOptions::new());
        let (row, claim) = insert_held(&mut thread);
        thread.shared.backlog.add(Owed::Return(row.id, claim));
        let other = open_beside(&directory);
        let held = "SELECT count(*) FROM job WHERE process IS NOT NULL";
        let held = || -> i64 { other.query_row(held, [], |row| row.get(0)).expect("a row") };
        // The transaction fails after it has returned the job.
        other
            .execute_batch(
                "CREATE TRIGGER fail AFTER UPDATE ON job BEGIN SELECT RAISE(ABORT, 'no'); END",
            )
            .expect("a trigger");
        thread.chores.backlog_due = Some(Instant::now());
        thread.commit(Vec::new());
        assert!(held() == 1 && thread.chores.backlog_due.is_some());
        other.execute_batch("DROP TRIGGER fail").expect("a trigger");
        thread.chores.backlog_due = Some(Instant::now());
        thread.commit(Vec::new());
        assert_eq!(held(), 0);
    }

    #[test]
    fn only_expired_rows_need_a_transaction() {
        let directory = TempDir::new().expect("a directory");
        let mut thread = new_thread(&directory, SqliteOptions::new());
        let mut observer = new_thread(&directory, SqliteOptions::new().observer());
        thread.look_for_expired();
        assert!(!thread.chores.are_due());
        let other = open_beside(&directory);
        let expired = "INSERT INTO tombstone (id, expires_at) VALUES ('id', 1)";
        other.execute(expired, []).expect("a row");
        // Not due again before the interval is over.
        thread.look_for_expired();
        assert!(!thread.chores.are_due());
        thread.next_expiry = Instant::now();
        thread.look_for_expired();
        observer.look_for_expired();
        assert!(thread.chores.are_due() && !observer.chores.are_due());
        thread.commit(Vec::new());
        assert!(!thread.chores.are_due());
        let left = "SELECT count(*) FROM tombstone";
        let left: i64 = other.query_row(left, [], |row| row.get(0)).expect("rows");
        assert_eq!(left, 0);
    }
}
