//! Requests, responses and deliveries as stores outside this process's memory keep them.
//!
//! The types serialize with [`serde`], so that a store picks the encoding.

mod carried;
mod delivery;
mod fields;
mod request;
mod rerun;

pub use self::{
    carried::CarriedExtensions, delivery::StoredDelivery, fields::StoredFields,
    request::StoredRequest, rerun::Rerun,
};
