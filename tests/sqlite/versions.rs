//! Files of released versions. Each opens in every later version.

use std::{fs, path::PathBuf};

use tower_accepted::store::sqlite::{SqliteOptions, SqliteStore};

use crate::{
    site::{Home, boxed, counting, end, hanging, keyed, layered, options, quick, registry, until},
    support::{Body, Counter, get, post, request, send},
};

/// The ids of the jobs in the file, in the order of [`write_version_1`].
const IDS: &str = include_str!("fixtures/version_1.txt");

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/sqlite/fixtures")
        .join(name)
}

#[tokio::test]
async fn file_of_version_1_opens() {
    let home = Home::new(options());
    fs::copy(fixture("version_1.db"), home.path()).unwrap();
    let ids: Vec<&str> = IDS.lines().collect();
    let [succeeded, failed, running] = ids[..] else {
        panic!("three ids");
    };
    let calls = Counter::default();
    let jobs = home.jobs().await;
    let _worker = crate::site::work(&jobs, counting(&calls, "again"));
    let site = layered(&jobs, quick());
    assert_eq!(end(&site, &format!("/jobs/{succeeded}")).await, "succeeded");
    let result = send(&site, get(&format!("/jobs/{succeeded}/result"))).await;
    assert_eq!(
        (&result.body[..], result.header("x-kept")),
        (&b"kept"[..], Some("yes"))
    );
    assert_eq!(end(&site, &format!("/jobs/{failed}")).await, "http_error");
    assert_eq!(end(&site, &format!("/jobs/{running}")).await, "succeeded");
    assert_eq!(calls.count(), 1);
    let repeat = send(&site, keyed("once")).await;
    assert_eq!(repeat.location(), format!("/jobs/{succeeded}"));
}

/// Writes the file. A released one never changes: this is for the version to come.
#[tokio::test]
#[ignore = "writes a fixture"]
async fn write_version_1() {
    let home = Home::new(SqliteOptions::new());
    let path = home.path();
    // Longer than the file will be in use.
    let years = std::time::Duration::from_secs(100 * 365 * 24 * 3_600);
    let options = options().retain(years);
    let store = SqliteStore::open(&path, options).await.unwrap();
    let jobs = registry(Default::default(), store);
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
    let copy = home.directory().join("copy.db");
    let store = home.store().await;
    store.backup_to(&copy).await.unwrap();
    fs::copy(copy, fixture("version_1.db")).unwrap();
    let ids: Vec<&str> = ids.iter().filter_map(|id| id.rsplit('/').next()).collect();
    fs::write(fixture("version_1.txt"), ids.join("\n") + "\n").unwrap();
}
