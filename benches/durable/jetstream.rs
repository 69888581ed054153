//! Accepts in JetStream with a sync for each write, if a server knows that setting.

use std::{env, process::Command};

use http::Method;
use tower_accepted::store::nats::{NatsOptions, NatsStore};

use crate::{
    accept,
    load::{self, Times},
};

#[path = "../../examples/cluster/servers.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod servers;

/// Measures accepts, or returns `None` without a server that knows `sync_interval`.
pub(crate) async fn measure(in_flight: usize) -> Option<Times> {
    let program = env::var_os("NATS_SERVER")?;
    let version = Command::new(program).arg("--version").output().ok()?;
    let version = String::from_utf8(version.stdout).ok()?;
    let mut numbers = version.trim().rsplit('v').next()?.split('.');
    let (major, minor): (u32, u32) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    if (major, minor) < (2, 10) {
        return None;
    }
    let servers = servers::Servers::start_with(1, "", "sync_interval: always").await?;
    let store = NatsStore::connect(servers.client().await, NatsOptions::new().max_queued(None));
    let jobs = load::jobs(store.await.ok()?);
    Some(accept::measure(&jobs, in_flight, &Method::PUT, false).await)
}
