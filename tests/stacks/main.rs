//! The layer in the stacks it is made for: in axum and on bare hyper, over sockets, and among
//! tower's own layers.

#![allow(clippy::unwrap_used)]

mod support;

mod layer_order;
mod mounting;
mod proxied;
mod readiness;
mod sockets;
mod streaming;
