//! Status reads of a job that the process knows, beside the store in memory.

use std::time::{Duration, Instant};

use tower_accepted::{
    JobId,
    store::{Acceptance, Budget, Lookup, MemoryStore, NewJob, Store, sqlite::SqliteOptions},
};

use crate::load::{Scratch, store};

const ROUNDS: usize = 21;
const READS: u32 = 100_000;

async fn known_job<St: Store>(store: &St) -> (JobId, St::Claim) {
    let job = NewJob::new(JobId::random());
    let (head, ()) = http::Request::post("/reports")
        .body(())
        .expect("a request")
        .into_parts();
    let record = store.record(&head, &bytes::Bytes::new(), None);
    match store.accept(&job, record).await {
        Ok(Acceptance::RunHere(claim)) => (job.id, claim),
        _ => panic!("the job is accepted"),
    }
}

async fn time_reads<St: Store>(store: &St, id: JobId) -> Duration {
    let begun = Instant::now();
    for _ in 0..READS {
        let found = store.get(id).await;
        assert!(matches!(found, Ok(Lookup::Found(_))));
    }
    begun.elapsed()
}

pub(crate) async fn print(scratch: &Scratch) {
    let memory = MemoryStore::new(Duration::from_secs(3600), Budget::new(1 << 28));
    let sqlite = store(scratch.file(), SqliteOptions::new()).await;
    let (memory_id, _memory_claim) = known_job(&memory).await;
    let (sqlite_id, _sqlite_claim) = known_job(&sqlite).await;
    let mut ratios = Vec::new();
    let mut nanos = Vec::new();
    for _ in 0..ROUNDS {
        let in_memory = time_reads(&memory, memory_id).await;
        let in_sqlite = time_reads(&sqlite, sqlite_id).await;
        ratios.push(in_sqlite.as_secs_f64() / in_memory.as_secs_f64());
        nanos.push(in_sqlite.as_nanos() as f64 / f64::from(READS));
    }
    ratios.sort_by(f64::total_cmp);
    nanos.sort_by(f64::total_cmp);
    println!("\n| operation | ns | ratio to memory, median (range) |");
    println!("|---|---|---|");
    println!(
        "| look-up of a known job | {:.0} | {:.2} ({:.2} to {:.2}) |",
        nanos[ROUNDS / 2],
        ratios[ROUNDS / 2],
        ratios[0],
        ratios[ROUNDS - 1],
    );
}
