//! The view for people, and copies of a file that is in use.

use http::StatusCode;
use tower_accepted::{
    Filter,
    store::sqlite::{SqliteError, SqliteStore},
};

use crate::{
    site::{
        Home, LARGE_BYTES, boxed, end, hanging, keyed, layered, options, quick, registry, until,
    },
    suites::routes::Inner,
    support::{Body, Counter, get, post, request, send},
};

/// Returns a service whose responses have files of their own.
fn large_answer() -> Inner {
    boxed(|_| async { Ok(http::Response::new(Body::from(vec![3; 700_000]))) })
}

fn large_body() -> Body {
    Body::from(vec![7; LARGE_BYTES])
}

#[tokio::test]
async fn view_shows_each_job() {
    let home = Home::new(options());
    let site = home.serve(quick()).await;
    let location = send(&site, post("/reports")).await.location().to_owned();
    end(&site, &location).await;
    let row: (String, String, String, i64, i64) = home
        .sql()
        .query_row(
            "SELECT id, status, kind, response, bytes FROM jobs",
            [],
            |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                ))
            },
        )
        .unwrap();
    let id = location.rsplit('/').next().unwrap().to_owned();
    let expected = (id, "succeeded".into(), "POST /reports".into(), 200, 5);
    assert_eq!(row, expected);
}

#[tokio::test]
async fn copy_of_a_file_in_use_has_everything() {
    let home = Home::new(options());
    let jobs = home.jobs().await;
    let site = layered(&jobs, large_answer());
    let ended = send(&site, keyed("once")).await.location().to_owned();
    end(&site, &ended).await;
    let calls = Counter::default();
    let site = layered(&jobs, hanging(&calls));
    let running = send(&site, request("PUT", "/it"))
        .await
        .location()
        .to_owned();
    until(async || calls.count() == 1).await;

    let store = home.store().await;
    let target = home.directory().join("copy.db");
    store.backup_to(&target).await.unwrap();
    // It overwrites nothing.
    let again = store.backup_to(&target).await;
    assert!(matches!(again, Err(SqliteError::Io { .. })), "{again:?}");

    let copy = SqliteStore::open(&target, options()).await.unwrap();
    let copy = registry(Default::default(), copy);
    let _worker = crate::site::work(&copy, quick());
    let site = layered(&copy, quick());
    assert_eq!(end(&site, &running).await, "succeeded");
    let result = send(&site, get(&format!("{ended}/result"))).await;
    assert_eq!(result.body, vec![3; 700_000]);
    assert_eq!(send(&site, keyed("once")).await.location(), ended);
    assert_eq!(copy.list(&Filter::new()).await.unwrap().jobs.len(), 2);
}

#[tokio::test]
async fn copy_leaves_out_jobs_whose_body_was_removed() {
    let home = Home::new(options());
    let store = home.store().await;
    let jobs = registry(Default::default(), store.clone());
    let ended = send(&layered(&jobs, large_answer()), keyed("ended")).await;
    end(&layered(&jobs, quick()), ended.location()).await;
    let calls = Counter::default();
    let site = layered(&jobs, hanging(&calls));
    let running = send(&site, keyed("running").map(|_| large_body())).await;
    send(&site, request("PUT", "/it").map(|_| large_body())).await;
    until(async || calls.count() == 2).await;
    // As if the first job had expired, and the second one had ended.
    let removed = "SELECT file FROM response WHERE file IS NOT NULL UNION \
         SELECT file FROM request JOIN job ON job.seq = request.job WHERE job.key IS NOT NULL";
    let mut files = 0;
    for file in home.texts(removed) {
        std::fs::remove_file(home.bodies().join(file)).unwrap();
        files += 1;
    }
    assert_eq!(files, 2);

    let target = home.directory().join("copy.db");
    store.backup_to(&target).await.unwrap();
    let copy = rusqlite::Connection::open(&target).unwrap();
    let totals = "SELECT unfinished, keys, file_bytes FROM totals";
    let totals: (u64, u64, usize) = copy
        .query_row(totals, [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    // The key of the ended job expires, as it does in the source.
    assert_eq!(totals, (1, 1, LARGE_BYTES));
    drop(copy);

    let copy = SqliteStore::open(&target, options()).await.unwrap();
    let copy = registry(Default::default(), copy);
    assert_eq!(copy.list(&Filter::new()).await.unwrap().jobs.len(), 1);
    let site = layered(&copy, quick());
    let repeat = send(&site, keyed("running").map(|_| large_body())).await;
    assert_eq!(repeat.status, StatusCode::ACCEPTED);
    assert_ne!(repeat.location(), running.location());
}
