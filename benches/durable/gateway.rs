//! Accepts through the gateway, over loopback.

use std::{path::PathBuf, process::Stdio};

use http::{Method, StatusCode};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

use crate::{
    accept,
    load::{IN_FLIGHT, Scratch, measure_warm},
};

/// Returns the gateway that was built with this benchmark, if it was.
fn program() -> Option<PathBuf> {
    option_env!("CARGO_BIN_EXE_accepted-gateway").map(PathBuf::from)
}

/// Starts a gateway in front of a server that never answers. Returns its address too.
async fn start(program: PathBuf, flags: &[&str]) -> (Child, String) {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let upstream = format!("http://{}", silent.local_addr().expect("an address"));
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok(connection) = silent.accept().await {
            open.push(connection);
        }
    });
    let mut child = Command::new(program)
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
    let Some(program) = program() else {
        println!("\nThe gateway is not measured: add its feature.");
        return;
    };
    println!("\n| gateway | in flight | per second | p50 ms | p99 ms | p99.9 ms |");
    println!("|---|---|---|---|---|---|");
    for in_flight in IN_FLIGHT {
        let path = scratch.file();
        let path = path.to_str().expect("a path");
        for (name, flags) in [("in memory", &[][..]), ("--store", &["--store", path][..])] {
            let (_child, address) = start(program.clone(), flags).await;
            let client = Client::builder(TokioExecutor::new())
                .build::<_, axum::body::Body>(HttpConnector::new());
            let times = measure_warm(in_flight, || {
                let mut request = accept::request(Method::PUT);
                *request.uri_mut() = format!("{address}/reports").parse().expect("a URI");
                let answering = client.request(request);
                async {
                    let answer = answering.await.expect("an answer");
                    assert_eq!(answer.status(), StatusCode::ACCEPTED);
                }
            });
            println!("| {name} | {in_flight} | {} |", times.await.cells());
        }
    }
}
