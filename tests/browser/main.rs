//! The status page and its events in headless Chromium, driven through WebDriver.
//!
//! The tests need `chromium` and `chromium-driver` (Debian's names), and report that they are skipped
//! if either is missing. They write screenshots to `target/screenshots`.

#![allow(clippy::unwrap_used)]

mod driver;
mod page;
mod site;
mod thumbnails;
