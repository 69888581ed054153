//! The workload: a process that accepts, ends and expires jobs while the library records it.

use std::{
    cell::Cell,
    env,
    fs::{self, File},
    future::poll_fn,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response, request};
use tokio::time::sleep;
use tower_accepted::{
    JobId,
    store::{
        Acceptance, End, Fingerprint, Finished, Key, Lookup, NewJob, NewKey, Outcome, Revisions,
        Store, Writer,
        sqlite::{SqliteClaim, SqliteOptions, SqliteStore, SqliteWriter},
    },
};

use super::history::{request_body, response_body};

/// The environment variables that start the workload. The library reads them too.
pub(super) const ROOT: &str = "POWER_ROOT";
pub(super) const MARKS: &str = "POWER_MARKS";

/// The name of [`workload_process`] in this binary.
pub(super) const WORKLOAD_TEST: &str = "power::workload::workload_process";

/// The retention of ended jobs, and of those that must expire during the workload.
const RETENTION: Duration = Duration::from_secs(3600);
const SHORT_RETENTION: Duration = Duration::from_millis(50);

/// The time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// A body that is a file, and one that is written to its file in two parts.
const LARGE_BYTES: usize = 300 * 1024;
const LARGER_BYTES: usize = 700 * 1024;

/// The parts of an output that is read while it is produced: in rows, and then in a file.
const PARTS: [usize; 4] = [200, 9_000, 300 * 1024, 50];

/// A body that is a row of many pages, so that a few jobs fill the log.
const ROW_BYTES: usize = 200 * 1024;

/// The number of jobs with such bodies: their pages are more than a checkpoint waits for, and
/// their removal leaves more free pages than the file keeps.
const ROW_JOBS: usize = 44;

/// The reason for which the request of a job may run again, if it may.
#[derive(Clone, Copy, PartialEq)]
enum Repetition {
    /// It may not.
    Once,
    /// Its method is idempotent.
    Idempotent,
    /// It has a key.
    Keyed,
}

impl Repetition {
    /// Each in turn.
    fn of(index: usize) -> Self {
        [Self::Once, Self::Idempotent, Self::Keyed][index % 3]
    }

    fn name(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Idempotent => "idempotent",
            Self::Keyed => "keyed",
        }
    }
}

/// Returns the head of a job's request.
pub(super) fn request_head(number: usize, method: Method) -> request::Parts {
    let request = Request::builder().method(method);
    let request = request.uri(format!("/reports/{number}")).body(());
    request.expect("a request").into_parts().0
}

/// Returns the status of a job's response.
fn status(number: usize) -> u16 {
    if number.is_multiple_of(5) { 500 } else { 200 }
}

/// Returns the key of a job's request.
pub(super) fn new_key(number: usize, body: &[u8]) -> NewKey {
    let head = request_head(number, Method::POST);
    let fingerprint = Fingerprint::new(&head, body, &[]);
    NewKey::new(
        Key::new(format!("key-{number}").as_bytes(), None),
        fingerprint,
    )
}

/// Runs the workload if the environment says so. This is no test: the recorder starts it.
#[tokio::test]
#[ignore = "the tests of power cuts start it"]
async fn workload_process() {
    let (Some(root), Some(marks)) = (env::var_os(ROOT), env::var_os(MARKS)) else {
        return;
    };
    let marks = File::options().append(true).open(marks);
    let workload = Workload {
        path: Path::new(&root).join("jobs.db"),
        marks: marks.expect("the file of marks"),
        next: Cell::new(0),
    };
    workload.run().await;
}

struct Workload {
    path: PathBuf,
    marks: File,
    next: Cell<usize>,
}

/// A job that this process has to end.
struct Running {
    number: usize,
    id: JobId,
    claim: SqliteClaim,
}

impl Workload {
    async fn run(&self) {
        self.mark("phase creation");
        let store = self.open(RETENTION).await;
        self.mark("phase accept");
        let mut running = self.accept_many(&store).await;
        self.mark("phase end");
        self.end_many(&store, running.drain(8..)).await;
        self.mark("phase body file");
        running.extend(self.pass_large_bodies(&store).await);
        self.mark("phase idle");
        // This hands the requests back.
        drop(running);
        self.close(store).await;

        // Each close is a checkpoint, and the next commit begins a new log.
        for index in 0..2 {
            let store = self.open(RETENTION).await;
            let kept = self.accept(&store, 500, Repetition::of(index)).await;
            let ended = self.accept(&store, 5_000, Repetition::Keyed).await;
            self.end(&store, ended, 9_000, "kept").await;
            drop(kept);
            self.close(store).await;
        }

        let store = self.open(SHORT_RETENTION).await;
        self.fill_log(&store).await;
        self.expire(&store).await;
        self.close(store).await;
    }

    async fn accept_many(&self, store: &SqliteStore) -> Vec<Running> {
        let mut running = Vec::new();
        for index in 0..8 {
            let length = [0, 100, 3_000, 20_000][index % 4];
            running.push(self.accept(store, length, Repetition::of(index)).await);
        }
        // These share commits.
        let together = (0..16).map(|index| self.accept(store, index * 400, Repetition::of(index)));
        running.extend(join_all(together).await);
        // The largest that is a row.
        running.push(self.accept(store, 256 * 1024, Repetition::Idempotent).await);
        for job in [&running[0], &running[3], &running[8]] {
            self.begin(store, job).await;
        }
        running
    }

    async fn end_many(&self, store: &SqliteStore, running: impl Iterator<Item = Running>) {
        let mut running: Vec<Running> = running.collect();
        let (canceled, deleted) = (running.pop().unwrap(), running.pop().unwrap());
        let together = running.split_off(6);
        for (index, job) in running.into_iter().enumerate() {
            let length = [0, 50, 4_000, 60_000][index % 4];
            self.end(store, job, length, "kept").await;
        }
        let together = together.into_iter().enumerate();
        join_all(together.map(|(index, job)| self.end(store, job, index * 900, "kept"))).await;
        self.cancel(store, canceled).await;
        self.delete(store, deleted).await;
    }

    /// Passes bodies that are files. Returns requests that wait.
    async fn pass_large_bodies(&self, store: &SqliteStore) -> Vec<Running> {
        let ended = self
            .accept(store, LARGE_BYTES, Repetition::Idempotent)
            .await;
        self.end(store, ended, 100, "kept").await;
        let ended = self.accept(store, LARGE_BYTES, Repetition::Keyed).await;
        self.end(store, ended, LARGER_BYTES, "kept").await;
        let mut waiting = vec![self.accept(store, LARGE_BYTES, Repetition::Keyed).await];
        let together = (0..3).map(|index| self.accept(store, LARGE_BYTES, Repetition::of(index)));
        waiting.extend(join_all(together).await);
        let together = (0..2).map(|index| self.accept(store, 10, Repetition::of(index)));
        let together = join_all(together).await.into_iter();
        join_all(together.map(|job| self.end(store, job, LARGE_BYTES, "kept"))).await;
        let deleted = waiting.pop().unwrap();
        self.delete(store, deleted).await;
        waiting.extend(self.produce_many(store).await);
        waiting
    }

    /// Produces outputs that are read meanwhile. Returns jobs whose outputs go no further.
    async fn produce_many(&self, store: &SqliteStore) -> Vec<Running> {
        let mut cut = Vec::new();
        for index in 0..6 {
            let job = self.accept(store, 10, Repetition::of(index)).await;
            if index % 3 == 0 {
                self.begin(store, &job).await;
            }
            let (writer, length) = self.produce(store, &job, &PARTS[..2 + index % 3]).await;
            match index {
                0 | 1 => cut.push(job),
                2 => self.cancel(store, job).await,
                3 => self.delete(store, job).await,
                _ => self.finish(store, job, writer, length, "kept").await,
            }
        }
        cut
    }

    /// Writes the parts of an output, and waits until each can be read. Returns its length.
    async fn produce(
        &self,
        store: &SqliteStore,
        job: &Running,
        parts: &[usize],
    ) -> (SqliteWriter, usize) {
        let mut writer = self.respond(store, job);
        let mut body = response_body(job.number, parts.iter().sum());
        let mut length = 0;
        for &part in parts {
            length += part;
            let part = body.split_to(part);
            let room = poll_fn(|cx| writer.poll_room(part.len(), cx)).await;
            room.unwrap();
            writer.push(part);
            writer.flush();
            while store.read(job.id, 0).await.unwrap().unwrap().available < length as u64 {
                sleep(LOOK_INTERVAL).await;
            }
            self.mark(&format!("seen {} {length}", job.number));
        }
        (writer, length)
    }

    /// Writes more than the log takes before a checkpoint, with jobs that will expire.
    async fn fill_log(&self, store: &SqliteStore) {
        for index in 0..ROW_JOBS {
            let job = self.accept(store, 10, Repetition::of(index)).await;
            self.end(store, job, ROW_BYTES, "expires").await;
        }
    }

    /// Waits until ended jobs have expired and are removed.
    async fn expire(&self, store: &SqliteStore) {
        let accepted = (0..70).map(|index| self.accept(store, index * 30, Repetition::of(index)));
        let accepted = join_all(accepted).await.into_iter();
        join_all(accepted.map(|job| self.end(store, job, 2_000, "expires"))).await;
        let (before, large) = (self.large_bodies(), 2);
        for index in 0..large {
            let job = self.accept(store, LARGE_BYTES, Repetition::of(index)).await;
            self.end(store, job, LARGE_BYTES, "expires").await;
        }
        self.mark("phase expiry");
        // The file of a response is removed with its job, the last ended ones last.
        while self.large_bodies() > before {
            sleep(LOOK_INTERVAL).await;
        }
        for index in 0..3 {
            self.accept(store, 700, Repetition::of(index)).await;
        }
        self.mark("phase idle");
    }

    /// Counts the files of large bodies, and those of locks.
    fn large_bodies(&self) -> usize {
        let root = self.path.with_file_name("jobs.db-bodies");
        let processes = fs::read_dir(root).unwrap().map(|process| process.unwrap());
        processes
            .map(|process| fs::read_dir(process.path()).unwrap().count())
            .sum()
    }

    fn mark(&self, line: &str) {
        // One system call is one mark.
        let line = format!("{line}\n");
        (&self.marks).write_all(line.as_bytes()).unwrap();
    }

    async fn open(&self, retention: Duration) -> SqliteStore {
        let options = SqliteOptions::new().retain(retention);
        SqliteStore::open(&self.path, options).await.unwrap()
    }

    /// Closes the file, and waits for its last checkpoint.
    async fn close(&self, store: SqliteStore) {
        drop(store);
        wait_for_close(&self.path).await;
        // The thread that has removed the log may not have recorded it yet. This mark waits for it.
        self.mark("phase idle");
    }

    async fn accept(&self, store: &SqliteStore, length: usize, repetition: Repetition) -> Running {
        let number = self.next.get();
        self.next.set(number + 1);
        let body = request_body(number, length);
        let method = match repetition {
            Repetition::Idempotent => Method::PUT,
            Repetition::Once | Repetition::Keyed => Method::POST,
        };
        let mut job = NewJob::new(JobId::random());
        let id = job.id;
        if repetition == Repetition::Keyed {
            job.key = Some(new_key(number, &body));
        }
        self.mark(&format!(
            "accepting {number} {id} {} {length}",
            repetition.name()
        ));
        let record = store.record(&request_head(number, method), &body, None);
        let Ok(Acceptance::RunHere(claim)) = store.accept(&job, record).await else {
            panic!("job {number} is not accepted");
        };
        self.mark(&format!("accepted {number}"));
        Running { number, id, claim }
    }

    async fn begin(&self, store: &SqliteStore, job: &Running) {
        self.mark(&format!("beginning {}", job.number));
        poll_fn(|cx| store.poll_begin(&job.claim, cx)).await;
        self.mark(&format!("begun {}", job.number));
    }

    async fn end(&self, store: &SqliteStore, job: Running, length: usize, fate: &str) {
        let number = job.number;
        self.mark_ending(number, length, fate);
        let mut writer = self.respond(store, &job);
        let mut body = response_body(number, length);
        while !body.is_empty() {
            let part: Bytes = body.split_to(body.len().min(64 * 1024));
            let room = poll_fn(|cx| writer.poll_room(part.len(), cx)).await;
            room.unwrap();
            writer.push(part);
        }
        self.store_end(store, job, writer, fate).await;
    }

    fn respond(&self, store: &SqliteStore, job: &Running) -> SqliteWriter {
        let head = Response::builder().status(status(job.number)).body(());
        store.respond(&job.claim, head.unwrap().into_parts().0, None)
    }

    /// Ends a job whose response has been written.
    async fn finish(
        &self,
        store: &SqliteStore,
        job: Running,
        writer: SqliteWriter,
        length: usize,
        fate: &str,
    ) {
        self.mark_ending(job.number, length, fate);
        self.store_end(store, job, writer, fate).await;
    }

    fn mark_ending(&self, number: usize, length: usize, fate: &str) {
        let status = status(number);
        self.mark(&format!("ending {number} {status} {length} {fate}"));
    }

    async fn store_end(&self, store: &SqliteStore, job: Running, writer: SqliteWriter, fate: &str) {
        let number = job.number;
        let end = End::new(Outcome::Response(writer));
        let Ok(Finished::First) = store.finish(&job.claim, end).await else {
            panic!("job {number} has not ended");
        };
        let revision = match store.get(job.id).await {
            Ok(Lookup::Found(job)) => job.revision,
            // It has expired already.
            _ if fate == "expires" => 0,
            other => panic!("job {number} is not found: {other:?}"),
        };
        self.mark(&format!("ended {number} {revision}"));
    }

    async fn cancel(&self, store: &SqliteStore, job: Running) {
        self.mark(&format!("canceling {}", job.number));
        let canceled = store.cancel(job.id, &Revisions::Any).await.unwrap();
        let canceled = canceled.and_then(Lookup::found).expect("the job");
        self.mark(&format!("canceled {} {}", job.number, canceled.revision));
    }

    async fn delete(&self, store: &SqliteStore, job: Running) {
        self.mark(&format!("deleting {}", job.number));
        store.forget(job.id, &Revisions::Any).await.unwrap();
        self.mark(&format!("deleted {}", job.number));
    }
}

/// Waits until a file that was dropped is closed: its last connection removes the log.
pub(super) async fn wait_for_close(database: &Path) {
    let log = database.with_file_name("jobs.db-wal");
    while log.exists() {
        sleep(LOOK_INTERVAL).await;
    }
}
