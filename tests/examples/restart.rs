//! The example `restart`.

use crate::program::command;

/// The output, which README.md shows.
const TRANSCRIPT: &str = r#"Starting server 1 on an empty file
  POST /quick/sales                   202, succeeded
  PUT  /slow/stock                    202, running
  POST /slow/audit  key "audit-2026"  202, running
  POST /slow/email                    202, running
  POST /slow/taxes                    202, queued
  POST /slow/costs  key "costs-2026"  202, queued

Killing server 1, and starting server 2 on the same file
  POST /quick/sales                   replayed with the same ETag: "sales by server 1"
  PUT  /slow/stock                    ran again: "stock by server 2"
  POST /slow/audit  key "audit-2026"  ran again: "audit by server 2"
  POST /slow/email                    lost: without a key it must not run twice
  POST /slow/taxes                    ran: "taxes by server 2"
  POST /slow/costs  key "costs-2026"  ran: "costs by server 2"

Repeating the requests that have a key
  POST /slow/audit  key "audit-2026"  202, the same job
  POST /slow/costs  key "costs-2026"  202, the same job
"#;

#[tokio::test]
async fn killed_server_loses_nothing_that_may_run_again() {
    let output = command("restart").output().await;
    let output = output.expect("the example starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text, TRANSCRIPT);
    assert!(output.status.success());
}
