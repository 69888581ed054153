//! What the operator sees: the `metrics` facade, or nothing without the feature `metrics`.

#[cfg(not(feature = "metrics"))]
mod disabled;
#[cfg(feature = "metrics")]
mod recorder;

#[cfg(not(feature = "metrics"))]
pub(crate) use self::disabled::*;
#[cfg(feature = "metrics")]
pub(crate) use self::recorder::*;
