//! A request of the run. Its number determines everything about it.

use http::Method;

/// The size of large bodies, which the store keeps in files.
const LARGE_BYTES: usize = 600_000;

/// The size of bodies just above and below the limit of rows.
const ROW_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskKind {
    /// PUT without a key: may run again.
    Put,
    /// POST with a key that both processes get at the same time: may run again.
    Twice,
    /// POST with a key that is repeated later: may run again.
    Repeated,
    /// POST without a key: must not run again.
    Once,
}

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
        let kind = match self.kind() {
            TaskKind::Put => "put",
            TaskKind::Twice => "twice",
            TaskKind::Repeated => "repeated",
            TaskKind::Once => "once",
        };
        format!("/{kind}/{}", self.number)
    }

    pub(super) fn kind(self) -> TaskKind {
        match self.number % 5 {
            0 => TaskKind::Put,
            1 => TaskKind::Twice,
            2 => TaskKind::Repeated,
            _ => TaskKind::Once,
        }
    }

    pub(super) fn is_keyed(self) -> bool {
        matches!(self.kind(), TaskKind::Twice | TaskKind::Repeated)
    }

    pub(super) fn method(self) -> Method {
        match self.kind() {
            TaskKind::Put => Method::PUT,
            _ => Method::POST,
        }
    }

    /// Returns the value of `Idempotency-Key`.
    pub(super) fn key(self) -> Option<String> {
        self.is_keyed().then(|| format!("\"{}\"", self.path()))
    }

    pub(super) fn request_body(self) -> Vec<u8> {
        let bytes = match self.number % 24 {
            3 => LARGE_BYTES,
            7 => ROW_BYTES + 1,
            11 => ROW_BYTES,
            number if number % 8 == 5 => 20_000,
            _ => 20,
        };
        self.pattern(bytes, 7)
    }

    pub(super) fn response_body(self) -> Vec<u8> {
        let bytes = match self.number % 32 {
            3 => LARGE_BYTES,
            14 => 2 * LARGE_BYTES,
            21 => ROW_BYTES,
            number if number % 8 == 2 => 20_000,
            _ => 30,
        };
        self.pattern(bytes, 13)
    }

    fn pattern(self, bytes: usize, factor: usize) -> Vec<u8> {
        let body = (0..bytes).map(|at| (self.number * 31 + at * factor + at / 251) as u8);
        body.collect()
    }
}
