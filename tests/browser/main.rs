//! The page and the events as a real browser sees them: headless Chromium, through WebDriver.
//!
//! Needs `chromium` and `chromium-driver` (Debian's names); without, each test says that it is skipped.
//! Screenshots are left in `target/screenshots`.

#![allow(clippy::unwrap_used)]

mod driver;
mod page;
mod site;
mod thumbnails;
