//! The example `notify`.

use crate::{
    client::{get, post, request, send},
    program::{Program, command},
};

const TRANSCRIPT: &str = r#"Submitted the request
  status              202 Accepted
  preference-applied  respond-async, callback
Received a webhook with a valid signature
  type                job.succeeded
  message             page 3 of 3
  result              the report
Sent a webhook without a signature
  status              400 Bad Request
  reason              missing header field webhook-id
Looked at the deliveries
  job.succeeded       delivered, attempts: 1
"#;

#[tokio::test]
async fn webhook_is_received_and_verified() {
    let output = command("notify").output().await;
    let output = output.expect("the example starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text, TRANSCRIPT);
    assert!(output.status.success());
}

#[tokio::test]
async fn example_serves_the_documented_commands() {
    let mut server = Program::spawn("notify", &["127.0.0.1:0"]);
    let line = server.line().await.expect("a first line");
    let (start, receiver) = line
        .split_once(", with a receiver at ")
        .expect("a receiver");
    let address = start
        .strip_prefix("Listening on http://")
        .expect("an address");
    let address = address.parse().expect("an address");

    let submit = request("POST", "/reports")
        .header(
            "prefer",
            format!("respond-async, callback; url=\"{receiver}\""),
        )
        .body("".into())
        .expect("a request");
    let job = send(address, submit).await.job();
    let id = job.rsplit('/').next().expect("an id");
    let line = server.line().await.expect("a webhook");
    assert_eq!(line, format!("job.succeeded of job {id}"));

    let document = get(address, &format!("{job}/callbacks")).await.json();
    assert_eq!(document["callbacks"][0]["url"], receiver);
    let port = receiver.strip_prefix("http://").expect("http");
    let port = port.strip_suffix("/hooks").expect("a path");
    let forged = post(port.parse().expect("an address"), "/hooks", "{}").await;
    assert_eq!(forged.status, 400);
}
