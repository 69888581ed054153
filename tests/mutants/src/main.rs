//! Runs the model of the layer against the crate with each fault, and fails if it misses one.

use std::{
    env, fs, io,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use mutants::{FAULTS, Fault};

/// The parts of the repository that the test of the model needs.
const PARTS: [&str; 8] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "docs",
    "src",
    "tests",
    "examples",
    "benches",
];

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = env::args_os().nth(1).unwrap_or_else(|| "target".into());
    let copy = root.join(&target).join("mutants");
    fs::create_dir_all(&copy).expect("the target folder is writable");
    for part in PARTS {
        copy_all(&root.join(part), &copy.join(part)).expect("the target folder is writable");
    }
    if !passes(&copy) {
        eprintln!("the model fails without a fault");
        return ExitCode::FAILURE;
    }
    let mut missed = 0;
    for (index, fault) in FAULTS.iter().enumerate() {
        let is_caught = is_caught(&root, &copy, fault);
        let verdict = if is_caught { "caught" } else { "MISSED" };
        println!(
            "{:2} of {}: {verdict}: {}",
            index + 1,
            FAULTS.len(),
            fault.name
        );
        missed += u32::from(!is_caught);
    }
    if missed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn is_caught(root: &Path, copy: &Path, fault: &Fault) -> bool {
    let file = Path::new("src").join(fault.file);
    let source = fs::read_to_string(root.join(&file)).expect("a source file");
    let faulty = source.replacen(fault.original, fault.replacement, 1);
    assert_ne!(faulty, source, "{}", fault.name);
    fs::write(copy.join(&file), faulty).expect("the copy is writable");
    let passes = passes(copy);
    fs::write(copy.join(&file), source).expect("the copy is writable");
    !passes
}

/// Compiles the test of the model, and returns whether it passes.
fn passes(copy: &Path) -> bool {
    let cargo = |arguments: &[&str]| {
        Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["test", "--quiet", "--locked", "--all-features"])
            .args(["--test", "allocations"])
            .args(arguments)
            .current_dir(copy)
            .env("CARGO_TARGET_DIR", copy.join(".."))
            .env("ACCEPTED_MODEL_CASES", "1000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("cargo runs")
            .success()
    };
    assert!(cargo(&["--no-run"]), "the crate compiles with the fault");
    cargo(&["--", "layer_behaves_as_its_model"])
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        fs::copy(from, to)?;
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() != "target" {
            copy_all(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
