//! The durations of one job that succeeded.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::progress::MidpointSample;

/// The durations of one job that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// In milliseconds since the Unix epoch, by the clock of the process that ran the job.
    pub(super) ended_at: u64,
    /// 32 random bits of the job's id. A false match loses one sample and does no other harm.
    pub(super) job: u32,
    /// In milliseconds.
    pub(super) queued: u32,
    /// In milliseconds, at least 1, so that the distribution has a width.
    pub(super) ran: u32,
    /// The slowdown after the midpoint, in thousandths; 0 if the job reported no progress.
    pub(super) slowdown: u32,
}

impl Sample {
    pub(crate) fn new(
        job: u32,
        ended_at: SystemTime,
        queued: Duration,
        ran: Duration,
        midpoint: &MidpointSample,
    ) -> Self {
        let slowdown = midpoint.slowdown(ran.as_secs_f64());
        Self {
            ended_at: unix_millis(ended_at),
            job,
            queued: millis(queued),
            ran: millis(ran).max(1),
            slowdown: slowdown.map_or(0, |slowdown| ((slowdown * 1e3) as u32).max(1)),
        }
    }
}

/// Returns the milliseconds since the Unix epoch.
pub(super) fn unix_millis(at: SystemTime) -> u64 {
    let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
