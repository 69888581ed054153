//! The layer as a client and an inner service see it.

mod support;

mod accepting;
