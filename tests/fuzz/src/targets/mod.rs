//! The fuzz targets: functions that panic if an input breaks their property.

mod accept;
mod conditions;
mod cursor;
mod input;
mod key;
mod link;
mod packed;
mod path;
mod prefer;
mod record;
mod retry_after;

pub use self::{
    accept::accept, conditions::conditions, cursor::cursor, key::key, link::link, packed::packed,
    path::path, prefer::prefer, record::record, retry_after::retry_after,
};
