//! Files of released versions. Each opens in every later version.

use std::{fs, path::PathBuf};

use tower_accepted::store::sqlite::{SqliteOptions, SqliteStore};

use crate::{
    deliveries::steps::{
        LONG_LEASE, URL, deliver, ended_for, list_all, outbox, take_all, take_one,
    },
    site::{Home, boxed, counting, end, hanging, keyed, layered, options, quick, registry, until},
    suites::routes::Outer,
    support::{Body, Counter, get, post, request, send},
};

/// The ids of the jobs in the files, in the order of [`write_version_2`].
const IDS_1: &str = include_str!("fixtures/version_1.txt");
const IDS_2: &str = include_str!("fixtures/version_2.txt");

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/sqlite/fixtures")
        .join(name)
}

/// Copies a file, so that opening it does not change it.
fn copy_of(name: &str) -> Home {
    let home = Home::new(options());
    fs::copy(fixture(name), home.path()).unwrap();
    home
}

fn parse_ids<const N: usize>(ids: &'static str) -> [&'static str; N] {
    let ids: Vec<&str> = ids.lines().collect();
    ids.try_into().expect("an id for each job")
}

/// Checks the jobs that the files of all versions have.
async fn check_jobs(site: &Outer, [succeeded, failed, running]: [&str; 3]) {
    assert_eq!(end(site, &format!("/jobs/{succeeded}")).await, "succeeded");
    let result = send(site, get(&format!("/jobs/{succeeded}/result"))).await;
    assert_eq!(
        (&result.body[..], result.header("x-kept")),
        (&b"kept"[..], Some("yes"))
    );
    assert_eq!(end(site, &format!("/jobs/{failed}")).await, "http_error");
    assert_eq!(end(site, &format!("/jobs/{running}")).await, "succeeded");
    let repeat = send(site, keyed("once")).await;
    assert_eq!(repeat.location(), format!("/jobs/{succeeded}"));
}

#[tokio::test]
async fn file_of_version_1_opens() {
    let home = copy_of("version_1.db");
    let ids = parse_ids(IDS_1);
    // A job that was accepted then is notified now.
    let target = r#"[{"url":"https://receiver.example/","events":["job.succeeded"]}]"#;
    let accepted = "UPDATE job SET callbacks = ?1 WHERE id = ?2";
    let accepted = home.sql().execute(accepted, [target, ids[2]]);
    assert_eq!(accepted.unwrap(), 1);
    let calls = Counter::default();
    let store = home.store().await;
    let jobs = registry(Default::default(), store.clone());
    let _worker = crate::site::work(&jobs, counting(&calls, "again"));
    check_jobs(&layered(&jobs, quick()), ids).await;
    assert_eq!(calls.count(), 1);
    assert_eq!(home.number("PRAGMA user_version"), 2);
    let outbox = outbox(&store);
    let delivery = take_one(&outbox, LONG_LEASE).await;
    assert_eq!(delivery.id.to_string(), format!("{}_0", ids[2]));
    let new = ended_for(&store, URL).await;
    assert_eq!(take_one(&outbox, LONG_LEASE).await.id.job(), new);
}

#[tokio::test]
async fn file_of_version_2_opens() {
    let home = copy_of("version_2.db");
    let [succeeded, failed, running, waiting, delivered] = parse_ids(IDS_2);
    let calls = Counter::default();
    let store = home.store().await;
    let jobs = registry(Default::default(), store.clone());
    let _worker = crate::site::work(&jobs, counting(&calls, "again"));
    check_jobs(&layered(&jobs, quick()), [succeeded, failed, running]).await;
    assert_eq!(calls.count(), 1);
    let outbox = outbox(&store);
    let delivery = take_one(&outbox, LONG_LEASE).await;
    assert_eq!(delivery.id.to_string(), format!("{waiting}_0"));
    assert_eq!(delivery.url, URL);
    let body: serde_json::Value = serde_json::from_slice(&delivery.body).unwrap();
    assert_eq!(body["data"]["id"], waiting);
    // The other one has expired if the file is older than a day.
    let listed = list_all(&outbox).await;
    let others = listed.iter().filter(|it| it.id != delivery.id);
    assert!(
        others
            .map(|it| it.id.job().to_string())
            .all(|it| it == delivered)
    );
}

/// Writes the file. A released one never changes: this is for the version to come.
#[tokio::test]
#[ignore = "writes a fixture"]
async fn write_version_2() {
    let home = Home::new(SqliteOptions::new());
    let path = home.path();
    // Longer than the file will be in use.
    let years = std::time::Duration::from_secs(100 * 365 * 24 * 3_600);
    let options = options().retain(years);
    let store = SqliteStore::open(&path, options).await.unwrap();
    let jobs = registry(Default::default(), store.clone());
    let kept = boxed(|request| async move {
        let status = if request.uri().path() == "/it" {
            200
        } else {
            500
        };
        let response = http::Response::builder()
            .status(status)
            .header("x-kept", "yes");
        Ok(response.body(Body::from("kept")).unwrap())
    });
    let site = layered(&jobs, kept);
    let mut ids = Vec::new();
    for request in [keyed("once"), post("/fails")] {
        let location = send(&site, request).await.location().to_owned();
        end(&site, &location).await;
        ids.push(location);
    }
    let calls = Counter::default();
    let site = layered(&jobs, hanging(&calls));
    ids.push(
        send(&site, request("PUT", "/runs"))
            .await
            .location()
            .to_owned(),
    );
    until(async || calls.count() == 1).await;
    let outbox = outbox(&store);
    let delivered = ended_for(&store, URL).await;
    for delivery in take_all(&outbox, LONG_LEASE).await {
        deliver(&outbox, &delivery).await;
    }
    let waiting = ended_for(&store, URL).await;
    ids.extend([waiting, delivered].map(|id| id.to_string()));
    let copy = home.directory().join("copy.db");
    let store = home.store().await;
    store.backup_to(&copy).await.unwrap();
    fs::copy(copy, fixture("version_2.db")).unwrap();
    let ids: Vec<&str> = ids.iter().filter_map(|id| id.rsplit('/').next()).collect();
    fs::write(fixture("version_2.txt"), ids.join("\n") + "\n").unwrap();
}
