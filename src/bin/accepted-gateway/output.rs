//! Prints to standard output.

use std::io::{self, Write};

/// Prints text, and ignores errors: the gateway also serves if the pipe is closed.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
