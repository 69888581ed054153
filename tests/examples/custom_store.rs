//! The example `custom_store`.

use crate::program::command;

#[tokio::test]
async fn result_comes_from_the_custom_store() {
    let output = command("custom_store").output().await;
    let output = output.expect("the example starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("202 Accepted: /jobs/"), "{text}");
    assert_eq!(lines[1..], ["200 OK: the report on Rust"]);
}

#[cfg(feature = "conformance")]
#[path = "../../examples/custom_store/store.rs"]
mod store;
#[path = "../../examples/custom_store/writer.rs"]
mod writer;

#[cfg(feature = "conformance")]
#[tokio::test(start_paused = true)]
async fn custom_store_keeps_its_promises() {
    use std::time::Duration;

    use tower_accepted::store::{Budget, conformance};

    let retain = Duration::from_secs(120);
    conformance::run(async || store::MapStore::new(retain, Budget::new(1 << 26))).await;
}

#[cfg(feature = "conformance")]
#[tokio::test]
async fn custom_store_keeps_keys_of_expired_jobs() {
    use std::time::Duration;

    use tower_accepted::store::{Budget, conformance};

    let retain = Duration::from_millis(10);
    conformance::run_expiry(async || store::MapStore::new(retain, Budget::new(1 << 26))).await;
}
