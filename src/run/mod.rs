//! One call, and exactly one end.

mod call;
mod drive;
pub(crate) mod replay;
mod response;
mod unshare;
mod worker;

pub use self::worker::Worker;
pub(crate) use self::{
    call::Call,
    drive::{Job, Run},
};
