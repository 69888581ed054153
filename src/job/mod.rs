//! One job: its id, its states, what is known of it, and how the inner service sees it.

mod digest;
mod filter;
mod forecast;
mod handle;
mod id;
mod owner;
mod snapshot;
mod state;

pub(crate) use handle::CallScope;
pub use handle::{JobHandle, Progress};
pub(crate) use id::IdText;
pub use id::{JobId, ParseJobIdError};
pub use snapshot::{Failure, ResponseHead, Snapshot};
pub use state::{ErrorCode, Event, Status};

pub(crate) use digest::Digest;
pub use filter::{Cursor, Filter, Page, ParseCursorError};
pub use owner::Owner;
