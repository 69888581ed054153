//! The state of one job's status monitor, from the client's view.

use http::{HeaderMap, HeaderValue, Request};

use super::{
    error::Reason,
    followed::NotFollowed,
    interpret::{MonitorProfile, MonitorStyle, reads_prefer},
    links::{self, MonitorField},
    origin::{FollowTarget, OriginPolicy},
};

/// The status monitor of one job.
#[derive(Debug)]
pub(super) struct MonitorState {
    pub(super) target: FollowTarget,
    pub(super) profile: MonitorProfile,
    /// The target of the 202's `Link` with `rel="monitor"`. Only this resource can be deleted, and
    /// has a stream, if `target` is an alias that serves the status alone.
    link: Option<FollowTarget>,
    /// Set once the server has shown that it reads `Prefer`.
    pub(super) reads_prefer: bool,
    /// The entity tag of the last document. The server can then hold a poll until it differs.
    pub(super) entity_tag: Option<HeaderValue>,
}

impl MonitorState {
    /// Finds the monitor in the head of a 202.
    pub(super) fn discover(
        accepted: &HeaderMap,
        original: &Request<()>,
        origins: &OriginPolicy,
        home: &FollowTarget,
        location_is_monitor: bool,
    ) -> Result<Self, NotFollowed> {
        let mut refused = None;
        let found = links::monitors(accepted).find_map(|(field, reference)| {
            match origins.resolve(home, reference) {
                // After an unsafe request this is the URI of the resource it made, not of its
                // progress (RFC 9110 §8.7).
                Ok(target)
                    if field == MonitorField::ContentLocation
                        && !original.method().is_safe()
                        && target.uri == home.uri =>
                {
                    None
                }
                Ok(target) => Some((field, target)),
                Err(reason) => {
                    refused.get_or_insert(reason);
                    None
                }
            }
        });
        let Some((field, target)) = found else {
            return Err(match refused {
                Some(Reason::OtherOrigin(uri)) => NotFollowed::OtherOrigin(uri),
                _ => NotFollowed::NoMonitor,
            });
        };
        let link = links::linked(accepted, "monitor");
        Ok(Self {
            link: link.and_then(|reference| origins.resolve(home, reference).ok()),
            profile: MonitorProfile {
                field,
                style: MonitorStyle::Unknown,
                location_is_monitor,
            },
            reads_prefer: target.is_home && reads_prefer(accepted),
            target,
            entity_tag: None,
        })
    }

    /// Returns the target of the 202's `Link`, whose job may have a stream below it.
    ///
    /// Other conventions have neither, so their monitors get no request for one.
    pub(super) fn link(&self) -> Option<&FollowTarget> {
        self.link.as_ref()
    }

    /// Replaces the monitor's URI. An entity tag of the old URI does not apply to the new one.
    pub(super) fn move_to(&mut self, target: FollowTarget) {
        self.target = target;
        self.entity_tag = None;
    }

    /// Returns the resource whose deletion cancels the job.
    pub(super) fn cancel_target(&self) -> &FollowTarget {
        self.link.as_ref().unwrap_or(&self.target)
    }
}
