//! The example `tokens`, read by clients that this project has not written.
//!
//! A proxy cuts their connections. Each must still get every byte or event once, in order.

use std::{io::ErrorKind, path::PathBuf, process::Output};

use http::StatusCode;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    client::{Answer, get, request, result, send},
    program::Program,
    proxy::Proxy,
};

/// The lengths at which the proxy cuts responses: in a head, and in the bodies of the next three.
const CUTS: [usize; 4] = [90, 900, 1500, 2500];

/// The guide, whose loop for curl is tested.
const GUIDE: &str = include_str!("../../src/guide/streaming.md");

/// A client of `requests-sse` (PyPI). It prints the data of each event as JSON, and the status that
/// ends it.
const REQUESTS_SSE: &str = r#"
import datetime, json, os
from requests_sse import EventSource, InvalidStatusCodeError

url = os.environ["MONITOR"] + "/stream?ids"
try:
    with EventSource(url, reconnection_time=datetime.timedelta(milliseconds=20)) as events:
        for event in events:
            print(json.dumps(event.data))
except InvalidStatusCodeError as error:
    print(error.status_code)
"#;

/// The same for `eventsource` (npm).
const EVENT_SOURCE: &str = r#"
import { EventSource } from "eventsource";

const events = new EventSource(process.env.MONITOR + "/stream?ids");
events.onmessage = (event) => console.log(JSON.stringify(event.data));
events.onerror = (error) => {
  if (events.readyState === EventSource.CLOSED) console.log(error.code);
};
"#;

/// Submits a prompt, and returns the path of the job.
async fn submit(server: &Program) -> String {
    let request = request("POST", "/chat")
        .header("content-type", "application/x-www-form-urlencoded")
        .body("prompt=Do+not+stop".into())
        .expect("a request");
    send(server.address, request).await.job()
}

async fn start() -> Program {
    let arguments = ["127.0.0.1:0", "--interval-ms", "5", "--tokens", "120"];
    Program::start("tokens", &arguments).await
}

/// Returns the data of the events of a whole output.
fn data(output: &Answer) -> Vec<String> {
    let text = str::from_utf8(&output.body).expect("UTF-8");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(str::to_owned).collect()
}

#[tokio::test]
async fn model_streams_events_without_ids() {
    let server = start().await;
    let page = get(server.address, "/").await;
    assert_eq!(page.status, StatusCode::OK);
    let job = submit(&server).await;
    let output = result(server.address, &job).await;
    assert_eq!(output.header("content-type"), Some("text/event-stream"));
    let text = String::from_utf8_lossy(&output.body).into_owned();
    assert!(!text.lines().any(|line| line.starts_with("id")), "{text}");
    let data = data(&output);
    assert_eq!(data.len(), 121);
    let first: Value = serde_json::from_str(&data[0]).expect("JSON");
    let token = &first["choices"][0]["delta"]["content"];
    assert_eq!(token, "You wrote: Do not stop\n");
    assert_eq!(data[120], "[DONE]");
}

#[tokio::test]
async fn curl_resumes_at_the_length_of_its_file() {
    let server = start().await;
    let proxy = Proxy::start(server.address, &CUTS).await;
    let job = submit(&server).await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut scripts = GUIDE
        .split("```sh\n")
        .filter_map(|part| part.split_once("```"));
    let (script, _) = scripts
        .find(|(script, _)| script.contains("until whole"))
        .expect("a loop");
    let mut curl = Command::new("sh");
    curl.args(["-c", &script.replace("sleep 1", "sleep 0.01")])
        .current_dir(&folder);
    if run("curl", curl, &proxy, &job).await.is_none() {
        return;
    }
    let file = std::fs::read(folder.path().join("out")).expect("a file");
    let output = result(server.address, &job).await;
    assert_eq!(
        String::from_utf8_lossy(&file),
        String::from_utf8_lossy(&output.body)
    );
    assert!(proxy.streams().len() > CUTS.len());
}

#[tokio::test]
async fn python_client_gets_each_event_once() {
    let server = start().await;
    let proxy = Proxy::start(server.address, &CUTS).await;
    let job = submit(&server).await;
    let mut python = Command::new("python3");
    python
        .args(["-c", REQUESTS_SSE])
        .env("PYTHONPATH", clients().join("python"));
    if let Some(output) = run("requests-sse", python, &proxy, &job).await {
        check_events(&server, &proxy, &job, output).await;
    }
}

#[tokio::test]
async fn node_client_gets_each_event_once() {
    let server = start().await;
    let proxy = Proxy::start(server.address, &CUTS).await;
    let job = submit(&server).await;
    let mut node = Command::new("node");
    // An import is looked up from the folder that the process runs in.
    node.args(["--input-type=module", "-e", EVENT_SOURCE])
        .current_dir(clients());
    if let Some(output) = run("eventsource", node, &proxy, &job).await {
        check_events(&server, &proxy, &job, output).await;
    }
}

/// Checks that a client printed the data of each event once and in order, and then 204.
async fn check_events(server: &Program, proxy: &Proxy, job: &str, output: Output) {
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.pop(), Some("204"), "{text}");
    let received: Vec<String> = lines
        .iter()
        .map(|line| serde_json::from_str(line).expect("a text"))
        .collect();
    let result = result(server.address, job).await;
    assert_eq!(received, data(&result));
    let streams = proxy.streams();
    // Each cut response, the rest, and the 204.
    assert_eq!(streams.len(), CUTS.len() + 2, "{streams:#?}");
    let resumed = streams[4].to_ascii_lowercase();
    assert!(resumed.contains("\r\nlast-event-id: 1-"), "{resumed}");
}

/// Runs a client against a job behind a proxy. Returns `None` if the client is not installed.
async fn run(name: &str, mut client: Command, proxy: &Proxy, job: &str) -> Option<Output> {
    let is_installed = match name {
        "curl" => Command::new("curl").arg("--version").output().await.is_ok(),
        "eventsource" => clients().join("node_modules/eventsource").is_dir(),
        _ => clients().join("python/requests_sse").is_dir(),
    };
    if !is_installed {
        println!("skipped: {name} is not installed. Run `./test`");
        return None;
    }
    client
        .env("MONITOR", format!("http://{}{job}", proxy.address))
        .kill_on_drop(true);
    let output = match client.output().await {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: {name} has no interpreter ({error})");
            return None;
        }
        Err(error) => panic!("{name}: {error}"),
    };
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {log}");
    assert_eq!(proxy.cuts_left(), 0);
    Some(output)
}

/// Returns the folder that `./test` installs clients in.
fn clients() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients")
}
