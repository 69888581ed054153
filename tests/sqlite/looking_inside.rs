//! The view for people, and copies of a file that is in use.

use tower_accepted::{
    Filter,
    store::sqlite::{SqliteError, SqliteStore},
};

use crate::{
    site::{Home, boxed, end, hanging, keyed, layered, options, quick, registry, until},
    support::{Body, Counter, get, post, request, send},
};

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
    let large = boxed(|_| async { Ok(http::Response::new(Body::from(vec![3; 700_000]))) });
    let jobs = home.jobs().await;
    let site = layered(&jobs, large);
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
