//! Maps a path to a resource of the monitor.

use crate::{config::Settings, job::JobId};

/// The resource of the monitor that a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// The jobs of an owner.
    List,
    /// A job, or a part of it.
    Job(JobId, Resource),
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
    /// `/jobs/{id}/cancel`: cancels the job.
    Cancel,
}

impl Route {
    /// Returns the resource that a path names, or `None` if the path belongs to the inner service.
    pub(crate) fn from_path(path: &str, settings: &Settings) -> Option<Self> {
        let rest = path.strip_prefix(settings.monitor_path.as_str())?;
        match rest.strip_prefix('/') {
            Some(rest) => Some(Self::job(rest)),
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
            rest => Self::job(rest),
        })
    }

    fn job(rest: &str) -> Self {
        let (id, resource) = match rest.split_once('/') {
            None => (rest, Resource::Monitor),
            Some((id, "status")) => (id, Resource::Status),
            Some((id, "events")) => (id, Resource::Events),
            Some((id, "result")) => (id, Resource::Result),
            Some((id, "cancel")) => (id, Resource::Cancel),
            Some(_) => return Self::Nowhere,
        };
        match id.parse() {
            Ok(id) => Self::Job(id, resource),
            Err(_) => Self::Nowhere,
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

impl Resource {
    /// Returns how many levels the resource is below the monitor of its job.
    pub(super) fn depth(self) -> usize {
        match self {
            Self::Monitor => 0,
            Self::Status | Self::Events | Self::Result | Self::Cancel => 1,
        }
    }
}
