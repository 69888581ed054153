//! A server that is killed while it has work, and the fate of that work.
//!
//! `cargo run --features sqlite --example restart` starts a server whose jobs are in a SQLite file,
//! and submits six requests. It kills the server while some of them run, starts it again on the
//! same file, and prints what became of each.

mod client;
mod server;
mod task;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tower::BoxError;

use crate::{
    client::{Answer, Client},
    server::Server,
    task::{TASKS, Task},
};

/// Kills a server while it has work, starts it again, and prints what became of the work
#[derive(Debug, Parser)]
#[command(name = "restart")]
struct Arguments {
    /// The role of the process that is killed
    #[command(subcommand)]
    process: Option<ProcessRole>,
}

// A doc comment would replace the help.
#[derive(Debug, Subcommand)]
enum ProcessRole {
    /// Serves jobs from a file
    #[command(hide = true)]
    Serve { file: String, number: u32 },
}

/// A request and the 202 that it got.
struct Accepted {
    task: &'static Task,
    location: String,
    /// The result, if there was one before the kill.
    result: Option<Answer>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match &Arguments::parse().process {
        None => demonstrate().await,
        Some(ProcessRole::Serve { file, number }) => server::serve(file, *number).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("restart: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demonstrate() -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("jobs.db");
    println!("Starting server 1 on an empty file");
    let mut server = Server::start(&file, 1)?;
    let accepted = submit(&Client::new(server.address()?)).await?;

    println!("\nKilling server 1, and starting server 2 on the same file");
    server.kill()?;
    let mut server = Server::start(&file, 2)?;
    let client = Client::new(server.address()?);
    for job in &accepted {
        println!("{}{}", job.task.label(), became(&client, job).await?);
    }

    println!("\nRepeating the requests that have a key");
    for job in accepted.iter().filter(|job| job.task.key.is_some()) {
        let repeated = client.submit(job.task).await?;
        let answer = if repeated.location == job.location {
            "202, the same job"
        } else {
            "202, another job"
        };
        println!("{}{answer}", job.task.label());
    }
    server.kill()?;
    Ok(())
}

/// Submits all requests. Each is in its state before the next one is sent.
async fn submit(client: &Client) -> Result<Vec<Accepted>, BoxError> {
    let mut all = Vec::new();
    for task in &TASKS {
        let location = client.submit(task).await?.location;
        client.wait_for(&location, task.state).await?;
        let result = match task.state {
            "succeeded" => Some(client.result(&location).await?),
            _ => None,
        };
        println!("{}202, {}", task.label(), task.state);
        all.push(Accepted {
            task,
            location,
            result,
        });
    }
    Ok(all)
}

/// Waits for the end of a job, and says what it was.
async fn became(client: &Client, job: &Accepted) -> Result<String, BoxError> {
    let document = client.end(&job.location).await?;
    match document["error"]["code"].as_str() {
        Some("lost") => return Ok("lost: without a key it must not run twice".to_owned()),
        Some(code) => return Ok(format!("failed: {code}")),
        None => {}
    }
    let result = client.result(&job.location).await?;
    let is_same = |first: &Answer| (&result.body, &result.etag) == (&first.body, &first.etag);
    let history = match &job.result {
        Some(first) if is_same(first) => "replayed with the same ETag",
        Some(_) => "another result",
        None if job.task.state == "queued" => "ran",
        None => "ran again",
    };
    Ok(format!("{history}: {:?}", result.body))
}
