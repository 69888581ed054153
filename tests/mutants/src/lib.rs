//! Faults that the model of the layer must find, each one line of the crate.

/// A fault: one text of a source file, and its replacement.
#[derive(Debug)]
pub struct Fault {
    pub name: &'static str,
    pub file: &'static str,
    pub original: &'static str,
    pub replacement: &'static str,
}

const fn fault(
    name: &'static str,
    file: &'static str,
    original: &'static str,
    replacement: &'static str,
) -> Fault {
    Fault {
        name,
        file,
        original,
        replacement,
    }
}

/// The faults, by the invariant that they break.
pub const FAULTS: [Fault; 13] = [
    fault(
        "the charge of a request is released early",
        "store/memory/claim.rs",
        "_request: request,",
        "_request: { let mut request = request; drop(request.split(usize::MAX)); request },",
    ),
    fault(
        "the charge of a call is kept after its end",
        "store/memory/ended.rs",
        "all.shrink_to(price);",
        "all.shrink_to(price.max(1_500));",
    ),
    fault(
        "requests take twice their share",
        "limit/budget.rs",
        "if !add_within(&self.accepted, bytes, self.quarter()) {",
        "if !add_within(&self.accepted, bytes, 2 * self.quarter()) {",
    ),
    fault(
        "a wake-up at the end is lost",
        "store/memory/unfinished.rs",
        "if let Some(watchers) = job.watchers {",
        "if let Some(watchers) = job.watchers.filter(|_| false) {",
    ),
    fault(
        "an end is recorded twice",
        "store/memory/table.rs",
        "self.order.lock().push(id, &self.budget);",
        "for _ in 0..2 { self.order.lock().push(id, &self.budget); }",
    ),
    fault(
        "a result that is read is evicted",
        "store/memory/evict.rs",
        "if !self.readings().pass_over(first) {",
        "if !self.readings().pass_over(first) || true {",
    ),
    fault(
        "jobs are evicted in vain",
        "store/memory/evict.rs",
        "if !self.budget().has_evictable(bytes, purpose) {",
        "if purpose == Purpose::Upload {",
    ),
    fault(
        "a replay never ends",
        "store/memory/reader.rs",
        "if self.table.readings().end(id, self.table.budget()) {",
        "if false {",
    ),
    fault(
        "a delete keeps the key",
        "store/memory/store.rs",
        "self.table.keys().free(key, id);",
        "let _ = key;",
    ),
    fault(
        "a permit is not released",
        "middleware/admission.rs",
        "_permit: candidate.permit.take().map(Permit::into_job),",
        "_permit: { std::mem::forget(candidate.permit.take()); None },",
    ),
    fault(
        "a job has no time limit",
        "run/drive.rs",
        "let limit = registry.settings.job_timeout;",
        "let limit = registry.settings.job_timeout.filter(|_| false);",
    ),
    fault(
        "a key joins another request",
        "store/memory/table.rs",
        "if keyed.fingerprint != key.fingerprint {",
        "if false {",
    ),
    fault(
        "a job that has left is not remembered",
        "store/memory/table.rs",
        "self.tombstones.insert(id, owner);",
        "let _ = owner;",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_replaces_one_text() {
        for Fault {
            name,
            file,
            original,
            ..
        } in &FAULTS
        {
            let source = std::fs::read_to_string(format!("../../src/{file}")).expect("a source");
            assert_eq!(source.matches(original).count(), 1, "{name}: {original}");
        }
    }
}
