//! Copies the crate's synchronization, with `use` lines that name models instead of primitives.
//!
//! It also writes copies with one fault each, so that tests can show that the models find it.

use std::{env, fs, path::PathBuf};

const SOURCE: &str = "../../src";

/// A file of the crate, and the module it becomes here.
const FILES: [(&str, &str); 3] = [
    ("limit/permits.rs", "permits"),
    ("stop.rs", "stop"),
    ("store/memory/live.rs", "live"),
];

/// A fault: its module, the module that has it, and the text that is replaced by another.
///
/// The build fails if a text no longer occurs exactly once.
const FAULTS: [(&str, &str, &str, &str); 7] = [
    (
        "permits_wait_created_after_the_read",
        "permits",
        "released.as_mut().enable();\n            \
         if is_done() {\n                return;\n            }",
        "if is_done() {\n                return;\n            }\n            \
         released.set(self.state.released.notified());",
    ),
    (
        "permits_not_acquired_in_one_step",
        "permits",
        "acquired.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)",
        "{\n            let now = acquired.load(Ordering::Relaxed);\n            \
         next(now).map(|next| acquired.swap(next, Ordering::Relaxed)).ok_or(now)\n        }",
    ),
    (
        "permits_release_unnoticed",
        "permits",
        "fetch_sub(1, Ordering::AcqRel) & CLOSED != 0",
        "fetch_sub(1, Ordering::AcqRel) & CLOSED == 0",
    ),
    (
        "permits_owner_forgotten",
        "permits",
        "state.owners.remove_if(owner, |_, count| *count == 0);",
        "state.owners.remove_if(owner, |_, _| true);",
    ),
    (
        "stop_only_polled_without_deadline",
        "stop",
        "if this.stopped.poll(cx).is_ready() {",
        "if this.deadline.as_ref().get_ref().is_none() && this.stopped.poll(cx).is_ready() {",
    ),
    (
        "live_change_created_after_the_lock",
        "live",
        "None => LivePart::Wait(self.changed.clone().notified_owned()),",
        "None => {\n                drop(state);\n                \
         LivePart::Wait(self.changed.clone().notified_owned())\n            }",
    ),
    (
        "live_end_set_after_the_notification",
        "live",
        "{\n            let mut state = self.state.lock();\n            if state.end.is_none() {\n\
         \u{20}               state.end(LiveEnd::Complete);\n                \
         state.trailers = trailers;",
        "self.notify();\n        {\n            let mut state = self.state.lock();\n            \
         if state.end.is_none() {\n                state.end(LiveEnd::Complete);\n                \
         state.trailers = trailers;\n                return;",
    ),
];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let write = |module: &str, text: &str| {
        fs::write(out.join(format!("{module}.rs")), text).expect("the folder is writable");
    };
    let mut modules = String::new();
    for (path, module) in FILES {
        let path = format!("{SOURCE}/{path}");
        println!("cargo::rerun-if-changed={path}");
        let text = fs::read_to_string(&path).expect("a source file");
        write(module, &modeled(&text));
        modules += &format!("pub mod {module};\n");
        for (fault, _, original, replacement) in FAULTS.iter().filter(|fault| fault.1 == module) {
            let count = text.matches(original).count();
            assert_eq!(
                count, 1,
                "{path} no longer has the text of the fault {fault}"
            );
            write(fault, &modeled(&text.replace(original, replacement)));
            modules += &format!("pub mod {fault};\n");
        }
    }
    write("modules", &modules);
}

/// Returns the source with models of the primitives, and with everything public.
fn modeled(text: &str) -> String {
    let text = text
        .replace("pub(crate)", "pub")
        .replace("pub(super)", "pub")
        .replace("#[cfg(test)]", "#[cfg(false)]");
    let lines = text.lines().map(|line| {
        let line = line
            .replace("use dashmap::", "use crate::dashmap::")
            .replace("use parking_lot::", "use crate::parking_lot::")
            .replace("use tokio::", "use crate::tokio::")
            .replace("use tokio_util::", "use crate::tokio_util::")
            .replace(
                "tokio::pin!(released)",
                "let mut released = std::pin::pin!(released)",
            )
            .replace("atomic::{AtomicUsize, Ordering}", "atomic::Ordering");
        format!("{line}\n")
    });
    let atomics = "use shuttle::sync::atomic::AtomicUsize;\n";
    let atomics = atomics.repeat(usize::from(text.contains("AtomicUsize")));
    lines.collect::<String>() + &atomics
}
