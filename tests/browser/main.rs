//! The status page and its events in headless Chromium, driven through WebDriver.
//!
//! The tests need `chromium` and `chromium-driver` (Debian's names). If either is missing, they
//! print that they are skipped. They write screenshots to `target/screenshots`.

#![allow(clippy::unwrap_used)]

mod driver;
mod page;
mod site;
mod thumbnails;
