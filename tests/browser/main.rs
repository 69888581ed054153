//! The status page, its events and pages of examples in headless Chromium.
//!
//! WebDriver drives it. The tests need `chromium` and `chromium-driver` (Debian's names). If either
//! is missing, they print that they are skipped. They write screenshots to `target/screenshots`.

#![allow(clippy::unwrap_used)]

#[path = "../gateway/program.rs"]
#[allow(dead_code, reason = "the tests of the gateway use all of it")]
mod program;
#[path = "../examples/proxy.rs"]
#[allow(dead_code, reason = "the tests of the examples use all of it")]
mod proxy;

mod driver;
mod output;
mod page;
mod site;
mod thumbnails;
mod tokens;
