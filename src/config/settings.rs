use std::{fmt, sync::Arc, time::Duration};

use http::request::Parts;

use super::{
    dialect::Dialect,
    links::{At, Links},
};
use crate::job::{IdText, Owner};

/// What a [`Builder`](crate::Builder) sets.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) monitor_path: String,
    pub(crate) max_unfinished: usize,
    pub(crate) max_bytes: usize,
    pub(crate) body_limit: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) result_limit: usize,
    pub(crate) job_timeout: Option<Duration>,
    pub(crate) cancel_grace: Duration,
    pub(crate) retain: Duration,
    pub(crate) max_wait: Duration,
    pub(crate) poll_cost: Duration,
    pub(crate) replay_cookies: bool,
    pub(crate) sandbox_results: bool,
    pub(crate) owner: Option<OwnerOf>,
    pub(crate) max_unfinished_per_owner: Option<usize>,
    pub(crate) links: Links,
    pub(crate) dialect: Dialect,
}

/// Tells whom a request comes from.
#[derive(Clone)]
pub(crate) struct OwnerOf(pub(crate) Arc<OwnerFn>);

pub(crate) type OwnerFn = dyn Fn(&Parts) -> Option<Owner> + Send + Sync;

impl fmt::Debug for OwnerOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerOf")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            monitor_path: "/jobs".to_owned(),
            max_unfinished: 10_000,
            max_bytes: 256 << 20,
            body_limit: 2 << 20,
            body_timeout: Duration::from_secs(30),
            result_limit: 16 << 20,
            job_timeout: Some(Duration::from_secs(3600)),
            cancel_grace: Duration::from_secs(5),
            retain: Duration::from_secs(3600),
            max_wait: Duration::from_secs(60),
            poll_cost: Duration::from_secs(1),
            replay_cookies: false,
            sandbox_results: false,
            owner: None,
            max_unfinished_per_owner: None,
            links: Links::default(),
            dialect: Dialect::default(),
        }
    }
}

impl Config {
    /// Whom a request comes from.
    pub(crate) fn owner(&self, head: &Parts) -> Option<Owner> {
        self.owner.as_ref().and_then(|owner| owner.0(head))
    }

    /// Writes the address of a job's monitor as it is written there.
    pub(crate) fn write_link(&self, to: &mut Vec<u8>, at: At<'_>, id: &IdText) {
        self.links.write_prefix(to, &self.monitor_path, at);
        to.extend_from_slice(id);
    }

    /// The address of an owner's list.
    pub(crate) fn list_link(&self) -> String {
        let mut link = Vec::new();
        self.links
            .write_prefix(&mut link, &self.monitor_path, At::Document);
        let link = String::from_utf8(link).unwrap_or_default();
        link.trim_end_matches('/').to_owned()
    }
}
