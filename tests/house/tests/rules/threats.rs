use crate::support::clean;

const TESTS: &str = "//! A.\n\n#[test]\nfn id_is_random() {}\n\nfn helper() {}\n";

fn model(rows: &str) -> String {
    let other = "| version | supported |\n|---|---|\n| 1 | `yes` |\n";
    format!("# Security\n\n{other}\n| threat | tests |\n|---|---|\n{rows}")
}

#[test]
fn threat_with_a_test_is_accepted() {
    let found = clean("threat")
        .file("tests/a.rs", TESTS)
        .file("SECURITY.md", &model("| guess | `id_is_random` |\n"))
        .check("threats");
    assert_eq!(found, "");
}

#[test]
fn threat_without_an_existing_test_is_found() {
    let rows = "| guess | `id_is_random`, `helper` |\n| read | none |\n";
    let found = clean("no_threat")
        .file("tests/a.rs", TESTS)
        .file("SECURITY.md", &model(rows))
        .check("threats");
    assert_eq!(
        found,
        "SECURITY.md:9: no test is named `helper`\n\
         SECURITY.md:10: a threat without a test\n"
    );
}
