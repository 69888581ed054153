use crate::support::clean;

#[test]
fn clean_checkout_passes() {
    assert_eq!(clean("clean").check_all(), "");
}

#[test]
fn ninth_flat_file_is_found() {
    let tree = (0..7).fold(clean("flat"), |tree, n| {
        tree.file(&format!("src/f{n}.rs"), "//! A.\n")
    });
    assert_eq!(tree.check("flat"), "");
    let found = tree.file("src/f7.rs", "//! A.\n").check("flat");
    assert!(
        found.contains("src/f7.rs:1: one of 9 files flat in src"),
        "{found}"
    );
}

#[test]
fn file_of_501_lines_is_found() {
    let found = clean("length")
        .file("examples/long.rs", &"//! A.\n".repeat(501))
        .file("examples/enough.rs", &"//! A.\n".repeat(500))
        .check("length");
    assert_eq!(
        found,
        "examples/long.rs:501: 501 lines: split it, 500 are enough\n"
    );
}

#[test]
fn file_without_a_sentence_at_its_head_is_found() {
    let found = clean("heads")
        .file("src/job/id.rs", "pub struct Id;\n")
        .check("heads");
    assert!(
        found.starts_with("src/job/id.rs:1: open the file with"),
        "{found}"
    );
}

#[test]
fn missing_ban_on_unsafe_code_is_found() {
    let manifest = "[lints.rust]\nmissing_docs = \"warn\"\n\n[x]\nunsafe_code = \"forbid\"\n";
    let found = clean("unsafe").file("Cargo.toml", manifest).check("unsafe");
    assert!(found.starts_with("Cargo.toml:1: "), "{found}");
}

#[test]
fn broken_file_is_found() {
    let found = clean("parse")
        .file("tests/broken.rs", "\nfn f( {}\n")
        .check("parse");
    assert!(
        found.starts_with("tests/broken.rs:2: cannot parse"),
        "{found}"
    );
}

#[test]
fn match_on_a_bool_is_found() {
    let text =
        "\nfn f(x: bool) -> u8 {\n    match x {\n        true => 1,\n        _ => 2,\n    }\n}\n";
    let found = clean("bools")
        .append("src/job/id.rs", text)
        .check("bool-match");
    assert!(
        found.starts_with("src/job/id.rs:6: `match` on a bool"),
        "{found}"
    );
    let text = "\nfn f(x: Option<bool>) -> bool {\n    matches!(x, Some(true))\n}\n";
    assert_eq!(
        clean("no_bools")
            .append("src/job/id.rs", text)
            .check("bool-match"),
        ""
    );
}
