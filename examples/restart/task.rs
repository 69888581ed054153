//! The requests of this example.

/// The service runs three requests at a time, so the last two wait.
pub(crate) const TASKS: [Task; 6] = [
    Task::new("POST", "/quick/sales", "succeeded"),
    Task::new("PUT", "/slow/stock", "running"),
    Task::new("POST", "/slow/audit", "running").with_key("audit-2026"),
    Task::new("POST", "/slow/email", "running"),
    Task::new("POST", "/slow/taxes", "queued"),
    Task::new("POST", "/slow/costs", "queued").with_key("costs-2026"),
];

/// A request, and the status of its job before the kill.
pub(crate) struct Task {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) key: Option<&'static str>,
    /// The status when the first server is killed.
    pub(crate) state: &'static str,
}

impl Task {
    const fn new(method: &'static str, path: &'static str, state: &'static str) -> Self {
        Self {
            method,
            path,
            key: None,
            state,
        }
    }

    const fn with_key(mut self, key: &'static str) -> Self {
        self.key = Some(key);
        self
    }

    /// Returns the request as the output shows it.
    pub(crate) fn label(&self) -> String {
        let key = self.key.map(|key| format!("  key {key:?}"));
        let line = format!("{:4} {}{}", self.method, self.path, key.unwrap_or_default());
        format!("  {line:36}")
    }
}
