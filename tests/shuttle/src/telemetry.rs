//! A stand-in for the crate's `telemetry`.

#[derive(Debug)]
pub struct GaugeGuard;

impl GaugeGuard {
    pub fn unfinished() -> Self {
        Self
    }
}
