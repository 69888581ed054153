//! Accepts through the gateway, over loopback. Its calls, and their server, share the machine.

use std::{process::Stdio, time::Duration};

use http::{Method, StatusCode};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::sleep,
};

use crate::{
    accept,
    load::{IN_FLIGHT, Scratch, measure_warm},
};

/// The delay before a refused request is sent again.
const RETRY_DELAY: Duration = Duration::from_millis(1);

/// Starts a gateway in front of a server that answers at once. Returns its address too.
async fn start(flags: &[&str]) -> (Child, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let upstream = format!("http://{}", listener.local_addr().expect("an address"));
    let app = axum::Router::new().fallback(async |_: axum::body::Bytes| "done");
    tokio::spawn(async { axum::serve(listener, app).await });
    let mut child = Command::new(env!("CARGO_BIN_EXE_accepted-gateway"))
        .args([
            "--upstream",
            &upstream,
            "--listen",
            "127.0.0.1:0",
            "--always",
        ])
        .args(["--max-unfinished", "10000000", "--max-calls", "64"])
        .args(flags)
        .env("RUST_LOG", "error")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("a line").expect("a line");
    let address = line
        .split_whitespace()
        .find(|word| word.starts_with("http://"));
    let address = address
        .expect("an address")
        .trim_end_matches(',')
        .to_owned();
    (child, address)
}

pub(crate) async fn print(scratch: &Scratch) {
    println!("\n| gateway | in flight | per second | p50 ms | p99 ms | p99.9 ms |");
    println!("|---|---|---|---|---|---|");
    for in_flight in IN_FLIGHT {
        let path = scratch.file();
        let path = path.to_str().expect("a path");
        for (name, flags) in [("in memory", &[][..]), ("--store", &["--store", path][..])] {
            let (_child, address) = start(flags).await;
            let client = Client::builder(TokioExecutor::new())
                .build::<_, axum::body::Body>(HttpConnector::new());
            let times = measure_warm(in_flight, || {
                let (client, uri) = (&client, format!("{address}/reports"));
                async move {
                    // Beyond the memory for accepted requests, the gateway answers 503.
                    loop {
                        let mut request = accept::request(Method::PUT);
                        *request.uri_mut() = uri.parse().expect("a URI");
                        let answer = client.request(request).await.expect("an answer");
                        if answer.status() == StatusCode::ACCEPTED {
                            break;
                        }
                        sleep(RETRY_DELAY).await;
                    }
                }
            });
            println!("| {name} | {in_flight} | {} |", times.await.cells());
        }
    }
}
