//! Requests and responses as stores outside this process's memory keep them.
//!
//! The types serialize with [`serde`], so that a store picks the encoding.

mod carried;
mod fields;
mod request;
mod rerun;

pub use self::{
    carried::CarriedExtensions, fields::StoredFields, request::StoredRequest, rerun::Rerun,
};
