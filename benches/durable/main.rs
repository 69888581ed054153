//! The price of durability: the SQLite store beside a raw append to a synced file.
//!
//! `cargo bench --all-features --bench durable` prints the tables of `benches/README.md`.
//! Words after `--` choose tables, such as `accept`. `NATS_SERVER` names a nats-server that knows
//! `sync_interval`; without it, JetStream is not measured.

mod accept;
mod append;
mod expire;
mod gateway;
mod jetstream;
mod load;
mod open;
mod share;
mod status;

use std::env;

use self::load::Scratch;

#[tokio::main]
async fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    if let [role, path] = &words[..]
        && role == share::CHILD
    {
        return share::run_child(path.as_ref()).await;
    }
    let is_wanted = |name: &str| {
        let mut named = words
            .iter()
            .filter(|word| !word.starts_with('-'))
            .peekable();
        named.peek().is_none() || named.any(|word| word == name)
    };
    let scratch = Scratch::new();
    if is_wanted("accept") {
        accept::print(&scratch).await;
    }
    if is_wanted("share") {
        share::print(&scratch).await;
    }
    if is_wanted("expire") {
        expire::print(&scratch).await;
    }
    if is_wanted("status") {
        status::print(&scratch).await;
    }
    if is_wanted("open") {
        open::print(&scratch).await;
    }
    if is_wanted("gateway") {
        gateway::print(&scratch).await;
    }
}
