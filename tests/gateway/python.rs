//! The gateway in front of independent HTTP servers: those of Python's standard library.

use std::{net::SocketAddr, process::Stdio};

use http::StatusCode;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
};

use crate::{
    client::{ended, get, post, request, result, send},
    program::Program,
};

/// A server that answers each POST after it reads a line from standard input.
const SLOW: &str = r#"
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        order = self.rfile.read(int(self.headers["Content-Length"]))
        sys.stdin.readline()
        self.send_response(201, "Rendered")
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(self.path.encode() + b": " + order[::-1])

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print("port", server.server_port, flush=True)
server.serve_forever()
"#;

struct Python {
    address: SocketAddr,
    input: ChildStdin,
    _child: Child,
}

impl Python {
    /// Starts a server that prints `port` and its port. Returns `None` without Python.
    async fn start(arguments: &[&str]) -> Option<Self> {
        let mut child = match Command::new("python3")
            .arg("-u")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
        {
            Ok(child) => child,
            Err(error) => {
                eprintln!("skipped: python3 is not installed ({error})");
                return None;
            }
        };
        let output = child.stdout.take().expect("piped");
        let line = BufReader::new(output).lines().next_line().await;
        let line = line.expect("UTF-8").expect("a line");
        let (_, port) = line.split_once("port ").expect("a port");
        let port = port.split(' ').next().unwrap_or_default();
        Some(Self {
            address: ([127, 0, 0, 1], port.parse().expect("a number")).into(),
            input: child.stdin.take().expect("piped"),
            _child: child,
        })
    }
}

#[tokio::test]
async fn slow_python_server_becomes_a_job_with_its_response() {
    let Some(mut python) = Python::start(&["-c", SLOW]).await else {
        return;
    };
    let gateway = Program::gateway(python.address, &[]).await;
    let job = post(gateway.address, "/render", "stressed").await.job();
    assert_eq!(get(gateway.address, &job).await.json()["status"], "running");
    python.input.write_all(b"go\n").await.expect("it reads");
    let document = ended(gateway.address, &job).await;
    assert_eq!(document["status"], "succeeded", "{document}");
    let result = result(gateway.address, &job).await;
    assert_eq!(result.status, StatusCode::CREATED);
    assert_eq!(result.header("content-type"), Some("text/plain"));
    assert_eq!(result.header("content-length"), Some("17"));
    assert_eq!(result.body, "/render: desserts");
}

#[tokio::test]
async fn file_server_serves_files_and_its_501_is_a_result() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let arguments = [
        "-m",
        "http.server",
        "0",
        "--bind",
        "127.0.0.1",
        "--directory",
        folder,
    ];
    let Some(python) = Python::start(&arguments).await else {
        return;
    };
    let gateway = Program::gateway(python.address, &["--always"]).await;
    let file = get(gateway.address, "/LICENSE").await;
    let license = include_bytes!("../../LICENSE");
    assert_eq!(file.status, StatusCode::OK);
    assert_eq!(file.body, &license[..]);
    let head = request("HEAD", "/LICENSE")
        .body("".into())
        .expect("a request");
    let head = send(gateway.address, head).await;
    let length = license.len().to_string();
    assert_eq!(head.header("content-length"), Some(length.as_str()));
    let missing = get(gateway.address, "/no/such/file").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);

    // The file server rejects POST with its own text.
    let job = post(gateway.address, "/LICENSE", "new terms").await.job();
    let refused = result(gateway.address, &job).await;
    assert_eq!(refused.status, StatusCode::NOT_IMPLEMENTED);
    let text = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(text.contains("Unsupported method ('POST')"), "{text}");
}
