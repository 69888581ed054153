//! Tests the client against receivers that misbehave, and against requests forged through it.

mod listener;
mod receiver;
mod support;

mod answers;
mod bad_receivers;
mod environment;
mod forged_names;
mod forged_urls;
mod pool;
mod redirects;
