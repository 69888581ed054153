//! The layer in axum, on bare hyper, over sockets and between the layers of tower and tower-http.

#![allow(clippy::unwrap_used)]

mod support;

mod body_types;
mod disconnects;
mod http1;
mod layer_order;
mod lifecycle;
mod mounting;
mod proxied;
mod readiness;
mod streaming;
mod uploads;
