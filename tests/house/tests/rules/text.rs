use crate::support::clean;

#[test]
fn line_of_101_columns_is_found() {
    let long = format!("//! {}\n", "ü".repeat(97));
    let enough = format!("//! {}\n", "ü".repeat(96));
    let found = clean("width")
        .file("src/a.rs", &long)
        .file("docs/b.md", &enough)
        .check("width");
    assert_eq!(found, "src/a.rs:1: 101 columns: break the line, 100 fit\n");
}

#[test]
fn tables_and_links_may_be_wide() {
    let far = "x".repeat(100);
    let text = format!(
        "| {far} |\n[a]: https://a.example/{far}\nsee [a](./{far}) and [b](./{far})\n\
         (https://a.example/{far})\n"
    );
    let code = format!("//! A.\n//! | {far} |\n//! [`a`]: crate::{far}\n");
    let found = clean("links")
        .file("a.md", &text)
        .file("src/a.rs", &code)
        .check("width");
    assert_eq!(found, "");
    let found = clean("after")
        .file("a.md", &format!("[a](b) {far}\n"))
        .check("width");
    assert_eq!(found, "a.md:1: 107 columns: break the line, 100 fit\n");
}

#[test]
fn fourth_stumble_in_a_folder_is_found() {
    let three = "//! A client\n//! who waits.\n//! Whoever waits.\n//! It is told.\n";
    let tree = clean("prose").file("src/job/id.rs", three);
    assert_eq!(tree.check("prose"), "");
    let found = tree
        .append("src/job/owner.rs", "// Nobody waits.\n")
        .check("prose");
    assert!(found.contains("src/job/id.rs:2: `who`"), "{found}");
    assert!(found.contains("src/job/owner.rs:6: `nobody`"), "{found}");
    assert_eq!(found.lines().count(), 4, "{found}");
}

#[test]
fn code_is_not_prose() {
    let text = "```sh\nwho\nwho\nwho\nwho\n```\n";
    assert_eq!(clean("code").file("docs/a.md", text).check("prose"), "");
}
