//! Two processes that accept into one file.

use std::{env, path::Path, process::Stdio, time::Duration};

use http::Method;
use tokio::process::Command;

use crate::{
    accept,
    load::{self, Scratch, store},
};

/// The first argument of a child process.
pub(crate) const CHILD: &str = "--share-child";

const IN_FLIGHT: usize = 32;

/// Accepts as one of the processes, and prints its figures.
pub(crate) async fn run_child(path: &Path) {
    let store = store(path.to_owned()).await;
    let jobs = load::jobs(store);
    let times = accept::measure(&jobs, IN_FLIGHT, &Method::PUT, false).await;
    println!("{}", times.cells());
    // The other process may still measure.
    tokio::time::sleep(Duration::from_secs(1)).await;
    std::process::exit(0);
}

pub(crate) async fn print(scratch: &Scratch) {
    println!("\n| process | per second | p50 ms | p99 ms | p99.9 ms |");
    println!("|---|---|---|---|---|");
    let path = scratch.file();
    let children = [1, 2].map(|number| {
        let program = env::current_exe().expect("a program");
        let child = Command::new(program)
            .arg(CHILD)
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn();
        (number, child.expect("a process"))
    });
    for (number, child) in children {
        let output = child.wait_with_output().await.expect("an exit");
        let figures = String::from_utf8_lossy(&output.stdout);
        println!("| {number} of 2, 32 in flight each | {} |", figures.trim());
    }
}
