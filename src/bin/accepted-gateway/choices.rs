//! The values of flags that choose one of several.

use clap::ValueEnum;
use tower_accepted::{Dialect, Outcomes};

#[cfg(feature = "nats")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Accept requests and serve the monitor
    Web,
    /// Run accepted requests; listens only for --health and --metrics
    Worker,
    /// Do both
    Both,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum DialectName {
    /// Always 200 and the status document: for Azure SDKs and your own clients
    Default,
    /// 202 until the job ends, then its result: for OData and FHIR
    Pending202,
    /// 202 until the job ends, then 303 to its result: for browsers and `curl -L`
    SeeOther,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum KeptOutcomes {
    /// All outcomes
    All,
    /// All outcomes except 5xx and 429, which may pass
    Final,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LinkForm {
    /// Absolute paths
    Path,
    /// Relative to the request: correct behind a proxy that strips a path prefix
    Relative,
}

impl From<DialectName> for Dialect {
    fn from(name: DialectName) -> Self {
        match name {
            DialectName::Default => Self::Default,
            DialectName::Pending202 => Self::Pending202,
            DialectName::SeeOther => Self::SeeOther,
        }
    }
}

impl From<KeptOutcomes> for Outcomes {
    fn from(kept: KeptOutcomes) -> Self {
        match kept {
            KeptOutcomes::All => Self::All,
            KeptOutcomes::Final => Self::Final,
        }
    }
}
