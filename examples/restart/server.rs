//! The server, which is a process of its own, so that it can be killed.

use std::{
    env,
    io::{self, BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::{Router, body::Body, extract, routing::any};
use tokio::{net::TcpListener, time::sleep};
use tower::{BoxError, Layer, limit::GlobalConcurrencyLimitLayer};
use tower_accepted::{
    Jobs,
    store::sqlite::{SqliteOptions, SqliteStore},
};

/// The number of requests that the service runs at a time.
const CONCURRENCY: usize = 3;

/// The time that a slow request takes.
const WORK: Duration = Duration::from_secs(2);

/// Accepts requests whose jobs are in a file, runs them, and serves their monitor.
pub(crate) async fn serve(file: &str, number: u32) -> Result<(), BoxError> {
    let store = SqliteStore::open(file, SqliteOptions::new()).await?;
    let jobs = Jobs::builder().store(store).build();
    let service = GlobalConcurrencyLimitLayer::new(CONCURRENCY).layer(reports(number));
    // Runs what an earlier server has left in the file.
    let worker = jobs.worker::<_, Body>(service.clone());
    tokio::spawn(worker.run());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let accepting = Router::new().fallback_service(jobs.layer().layer(service));
    axum::serve(listener, accepting).await?;
    Ok(())
}

/// Returns a service that knows nothing of 202.
fn reports(number: u32) -> Router {
    let quick = async move |extract::Path(name): extract::Path<String>| report(&name, number);
    let slow = async move |extract::Path(name): extract::Path<String>| {
        sleep(WORK).await;
        report(&name, number)
    };
    Router::new()
        .route("/quick/{name}", any(quick))
        .route("/slow/{name}", any(slow))
}

fn report(name: &str, number: u32) -> String {
    format!("{name} by server {number}")
}

/// A running server. Dropping it kills the process.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    pub(crate) fn start(file: &Path, number: u32) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("serve").arg(file).arg(number.to_string());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self { child })
    }

    /// Waits until the server prints its address.
    pub(crate) fn address(&mut self) -> io::Result<String> {
        let output = self.child.stdout.take();
        let output = output.ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Kills the process as `kill -9` does, without a chance to shut down.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.kill();
    }
}
