//! Maps a path to a resource of the monitor.

use crate::{
    config::{Links, Settings},
    job::JobId,
};

/// The resource of the monitor that a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// The jobs of an owner.
    List,
    /// A job, or a part of it.
    Job(JobId, Resource),
    /// `/jobs/callbacks-key`: the keys that verify webhooks.
    CallbacksKey,
    /// A path under the monitor that has no resource.
    Nowhere,
}

/// A resource of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    /// `/jobs/{id}`, which depends on the dialect.
    Monitor,
    /// `/jobs/{id}/status`: the status document, in every dialect.
    Status,
    /// `/jobs/{id}/events`: the status documents, as events.
    Events,
    /// `/jobs/{id}/result`: the response of the inner service.
    Result,
    /// `/jobs/{id}/stream`: the response of the inner service, while it is produced.
    Stream,
    /// `/jobs/{id}/callbacks`: the state of notifications.
    Callbacks,
    /// `/jobs/{id}/cancel`: cancels the job.
    Cancel,
}

impl Route {
    /// Returns the resource that a path names, or `None` if the path belongs to the inner service.
    pub(crate) fn from_path(path: &str, settings: &Settings) -> Option<Self> {
        let rest = path.strip_prefix(settings.monitor_path.as_str())?;
        match rest.strip_prefix('/') {
            Some("") if settings.owner.is_some() && may_end_with_slash(settings) => {
                Some(Self::List)
            }
            Some(rest) => Some(Self::job(rest, settings)),
            // Without owners there is no list, and the path belongs to the inner service.
            None => (rest.is_empty() && settings.owner.is_some()).then_some(Self::List),
        }
    }

    /// Returns the resource that a path names if the monitor is mounted alone, so that its path may
    /// have been stripped.
    pub(super) fn from_mounted_path(path: &str, settings: &Settings) -> Self {
        let stripped = path.strip_prefix('/').unwrap_or(path);
        Self::from_path(path, settings).unwrap_or_else(|| match stripped {
            "" if settings.owner.is_some() => Self::List,
            rest => Self::job(rest, settings),
        })
    }

    fn job(rest: &str, settings: &Settings) -> Self {
        let stripped = rest.strip_suffix('/');
        let rest = stripped
            .filter(|_| may_end_with_slash(settings))
            .unwrap_or(rest);
        let (id, resource) = match rest.split_once('/') {
            None if rest == "callbacks-key" => return Self::CallbacksKey,
            None => (rest, Resource::Monitor),
            Some((id, "status")) => (id, Resource::Status),
            Some((id, "events")) => (id, Resource::Events),
            Some((id, "result")) => (id, Resource::Result),
            Some((id, "stream")) => (id, Resource::Stream),
            Some((id, "callbacks")) => (id, Resource::Callbacks),
            Some((id, "cancel")) => (id, Resource::Cancel),
            Some(_) => return Self::Nowhere,
        };
        match id.parse().ok().or_else(|| decode_id(id)) {
            Some(id) => Self::Job(id, resource),
            None => Self::Nowhere,
        }
    }

    /// Returns the methods of the resource, as in `Allow`.
    pub(super) fn allow(self) -> &'static str {
        match self {
            Self::Job(_, Resource::Monitor) => "GET, HEAD, DELETE, OPTIONS",
            Self::Job(_, Resource::Cancel) => "POST, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }
}

/// Returns `true` if a path may end with a slash: relative links would lead elsewhere from there.
fn may_end_with_slash(settings: &Settings) -> bool {
    !matches!(settings.links, Links::Relative)
}

/// Parses an id that has percent-encoded characters (RFC 3986 §2.3).
fn decode_id(text: &str) -> Option<JobId> {
    let (mut decoded, mut rest) = (String::new(), text);
    while let Some((plain, escape)) = rest.split_once('%') {
        let (digits, after) = escape.split_at_checked(2)?;
        decoded.push_str(plain);
        decoded.push(u8::from_str_radix(digits, 16).ok()?.into());
        rest = after;
    }
    decoded.push_str(rest);
    decoded.parse().ok()
}

impl Resource {
    /// Returns how many levels the resource is below the monitor of its job.
    pub(super) fn depth(self) -> usize {
        match self {
            Self::Monitor => 0,
            Self::Status
            | Self::Events
            | Self::Result
            | Self::Stream
            | Self::Callbacks
            | Self::Cancel => 1,
        }
    }
}
