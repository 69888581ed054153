//! Webhooks: their keys and signatures, against the specification and other libraries.

mod keys;
mod libraries;
mod node;
mod scripts;
mod signed;
mod support;
mod vectors;
mod verifying;
