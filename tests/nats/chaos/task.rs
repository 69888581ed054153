//! A request of the run. Its number determines everything about it.

use http::Request;

use crate::support::{Body, request, with};

/// The maximum size of a body that is part of its record.
pub(super) const INLINE_BYTES: usize = 4 << 10;

#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    pub(super) number: usize,
}

impl Task {
    pub(super) fn from_path(path: &str) -> Self {
        let number = path.rsplit('/').next().and_then(|text| text.parse().ok());
        let number = number.expect("a path of this test");
        Self { number }
    }

    pub(super) fn path(self) -> String {
        format!("/{}/{}", self.kind(), self.number)
    }

    fn kind(self) -> &'static str {
        match self.number % 4 {
            0 => "again", // may run again: its method is idempotent
            1 => "keyed", // may run again: it has a key, and is sent twice
            _ => "once",
        }
    }

    pub(super) fn is_keyed(self) -> bool {
        self.kind() == "keyed"
    }

    /// Returns the body of the request and of its result.
    ///
    /// Most bodies are small. One in ten needs one chunk, one in a hundred several.
    pub(super) fn body(self) -> Vec<u8> {
        let bytes = match self.number % 100 {
            7 => 600_000,
            number if number % 10 == 3 => 5 * INLINE_BYTES,
            _ => 20,
        };
        let body = (0..bytes).map(|at| (self.number * 31 + at * 7) as u8);
        body.collect()
    }

    pub(super) fn request(self) -> Request<Body> {
        let method = match self.kind() {
            "again" => "PUT",
            _ => "POST",
        };
        let mut request = request(method, &self.path());
        *request.body_mut() = Body::from(self.body());
        if self.is_keyed() {
            with(request, &[("idempotency-key", &self.path())])
        } else {
            request
        }
    }
}

/// Returns whether the request of this path must not run twice.
pub(super) fn runs_once(path: &str) -> bool {
    path.starts_with("/once/")
}
