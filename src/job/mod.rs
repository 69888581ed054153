//! One job: its id, its states, what is known of it, and how the inner service sees it.

mod handle;
mod id;
mod snapshot;
mod state;

pub(crate) use handle::CallScope;
pub use handle::{JobHandle, Progress};
pub(crate) use id::IdText;
pub use id::{JobId, ParseJobIdError};
pub use snapshot::{Failure, ResponseHead, Snapshot};
pub use state::{ErrorCode, Event, Status};
