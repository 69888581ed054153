use crate::{config::Config, job::JobId};

/// What of the monitor a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// An owner's jobs.
    List,
    /// One job, or a part of it.
    Job(JobId, Resource),
    /// What there can't be.
    Nowhere,
}

/// What there is of each job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    /// `/jobs/{id}`, which the dialect shapes.
    Monitor,
    /// `/jobs/{id}/status`: the document in every state and dialect.
    Status,
    /// `/jobs/{id}/events`: the documents as they come.
    Events,
    /// `/jobs/{id}/result`
    Result,
    /// `/jobs/{id}/cancel`
    Cancel,
}

impl Place {
    /// The place that a path names; `None` where the path is not the monitor's.
    pub(crate) fn of(path: &str, config: &Config) -> Option<Self> {
        let rest = path.strip_prefix(config.monitor_path.as_str())?;
        match rest.strip_prefix('/') {
            Some(rest) => Some(Self::job(rest)),
            // Without owners there is no list: the path is the inner service's.
            None => (rest.is_empty() && config.owner.is_some()).then_some(Self::List),
        }
    }

    /// The same where the monitor is mounted alone: its path may have been stripped.
    pub(super) fn of_mounted(path: &str, config: &Config) -> Self {
        let stripped = path.strip_prefix('/').unwrap_or(path);
        Self::of(path, config).unwrap_or_else(|| match stripped {
            "" if config.owner.is_some() => Self::List,
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

    /// The methods of what is there.
    pub(super) fn allow(self) -> &'static str {
        match self {
            Self::Job(_, Resource::Monitor) => "GET, HEAD, DELETE, OPTIONS",
            Self::Job(_, Resource::Cancel) => "POST, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }
}

impl Resource {
    /// How many levels it is below the monitor.
    pub(super) fn depth(self) -> usize {
        match self {
            Self::Monitor => 0,
            Self::Status | Self::Events | Self::Result | Self::Cancel => 1,
        }
    }
}
