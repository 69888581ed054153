//! The settings of a registry.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderValue, Uri, request::Parts};

use super::{
    dialect::Dialect,
    error::ConfigError,
    links::{LinkOrigin, Links, is_plain},
};
use crate::job::{IdText, Owner};

#[cfg(feature = "webhook")]
use crate::webhook::Webhooks;

/// The settings of a registry, with their defaults.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) monitor_path: String,
    pub(crate) max_unfinished: usize,
    /// Set if a request over a limit on jobs is refused even if it need not become a job.
    pub(crate) sheds_when_full: bool,
    /// The limit of the store's budget; `None` leaves it as the store has it.
    pub(crate) max_bytes: Option<usize>,
    pub(crate) max_body: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) max_result: usize,
    pub(crate) job_timeout: Option<Duration>,
    pub(crate) cancel_grace: Duration,
    pub(crate) max_wait: Duration,
    /// The store's own, if absent.
    pub(crate) room_timeout: Option<Duration>,
    pub(crate) replay_timeout: Duration,
    pub(crate) poll_cost: Duration,
    pub(crate) replay_cookies: bool,
    pub(crate) sandbox_results: bool,
    pub(crate) owner: Option<OwnerFn>,
    pub(crate) cancel_origins: Option<OriginFn>,
    pub(crate) max_unfinished_per_owner: Option<usize>,
    pub(crate) links: Links,
    pub(crate) dialect: Dialect,
    /// Taken when the registry is created.
    #[cfg(feature = "webhook")]
    pub(crate) webhooks: Option<Arc<Webhooks>>,
}

/// Returns the owner of a request.
#[derive(Clone)]
pub(crate) struct OwnerFn(Arc<DynOwnerFn>);

type DynOwnerFn = dyn Fn(&Parts) -> Option<Owner> + Send + Sync;

impl OwnerFn {
    pub(crate) fn new(owner: impl Fn(&Parts) -> Option<Owner> + Send + Sync + 'static) -> Self {
        Self(Arc::new(owner))
    }
}

impl fmt::Debug for OwnerFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerFn")
    }
}

/// Returns `true` for an origin that is allowed.
#[derive(Clone)]
pub(crate) struct OriginFn(Arc<DynOriginFn>);

type DynOriginFn = dyn Fn(&HeaderValue) -> bool + Send + Sync;

impl OriginFn {
    pub(crate) fn new(is_allowed: impl Fn(&HeaderValue) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_allowed))
    }
}

impl fmt::Debug for OriginFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OriginFn")
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            monitor_path: "/jobs".to_owned(),
            max_unfinished: 10_000,
            sheds_when_full: false,
            max_bytes: None,
            max_body: 2 << 20,
            body_timeout: Duration::from_secs(30),
            max_result: 16 << 20,
            job_timeout: Some(Duration::from_secs(3600)),
            cancel_grace: Duration::from_secs(5),
            max_wait: Duration::from_secs(50),
            room_timeout: None,
            replay_timeout: Duration::from_secs(120),
            poll_cost: Duration::from_secs(1),
            replay_cookies: false,
            sandbox_results: false,
            owner: None,
            cancel_origins: None,
            max_unfinished_per_owner: None,
            links: Links::default(),
            dialect: Dialect::default(),
            #[cfg(feature = "webhook")]
            webhooks: None,
        }
    }
}

impl Settings {
    /// # Errors
    ///
    /// Returns the first option that is invalid.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if !is_monitor_path(&self.monitor_path) {
            return Err(ConfigError::MonitorPath(self.monitor_path.clone()));
        }
        self.links.check()
    }

    /// Returns the owner of a request.
    pub(crate) fn owner(&self, head: &Parts) -> Option<Owner> {
        self.owner.as_ref().and_then(|owner| owner.0(head))
    }

    /// Returns `true` if pages of this origin may cancel jobs, although it is another site's.
    pub(crate) fn may_cancel_from(&self, origin: &HeaderValue) -> bool {
        let origins = self.cancel_origins.as_ref();
        origins.is_some_and(|is_allowed| is_allowed.0(origin))
    }

    /// Writes the URI of a job's monitor, as a reference from `origin`.
    pub(crate) fn write_link(&self, to: &mut Vec<u8>, origin: LinkOrigin<'_>, id: &IdText) {
        self.links.write_prefix(to, &self.monitor_path, origin);
        to.extend_from_slice(id);
    }

    /// Writes an absolute path of the service, as a reference from this many levels below the
    /// monitor of a job.
    pub(crate) fn write_path(&self, to: &mut Vec<u8>, depth: usize, path: &[u8]) {
        self.links.write_path(to, &self.monitor_path, depth, path);
    }

    /// Returns the URI of a job's monitor for a receiver that has sent no request: an absolute path
    /// if links are relative.
    pub(crate) fn callback_link(&self, id: &IdText) -> String {
        let links = match &self.links {
            Links::Relative => &Links::Path,
            links => links,
        };
        let mut link = Vec::new();
        links.write_prefix(&mut link, &self.monitor_path, LinkOrigin::Document);
        link.extend_from_slice(id);
        String::from_utf8(link).expect("a link has only ASCII characters")
    }

    /// Returns the URI of an owner's list.
    pub(crate) fn list_link(&self) -> String {
        let mut link = Vec::new();
        self.links
            .write_prefix(&mut link, &self.monitor_path, LinkOrigin::Document);
        let link = String::from_utf8(link).unwrap_or_default();
        link.trim_end_matches('/').to_owned()
    }
}

/// Returns `true` if clients that resolve a link to this path arrive at the same path.
///
/// They remove dot segments, escaped ones included (RFC 3986 §5.2.4), and read what follows a
/// double slash as a host.
fn is_monitor_path(path: &str) -> bool {
    let is_segment = |segment: &str| {
        let unescaped = segment.to_ascii_lowercase().replace("%2e", ".");
        !matches!(unescaped.as_str(), "" | "." | "..")
    };
    path.strip_prefix('/')
        .is_some_and(|path| path.split('/').all(is_segment))
        && is_plain(path)
        && has_complete_escapes(path)
        && path.parse::<Uri>().is_ok_and(|uri| uri.path() == path)
}

/// Returns `true` if two hexadecimal digits follow each percent sign.
fn has_complete_escapes(path: &str) -> bool {
    path.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}
