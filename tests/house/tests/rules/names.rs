use crate::support::clean;

#[test]
fn two_types_of_one_name_are_found() {
    let found = clean("types_twice")
        .append("src/job/id.rs", "\nmod inner {\n    pub enum Owner {}\n}\n")
        .check("types");
    assert_eq!(
        found,
        "src/job/id.rs:6: `Owner` is defined in src/job/owner.rs:5 too: rename one\n\
         src/job/owner.rs:5: `Owner` is defined in src/job/id.rs:6 too: rename one\n"
    );
}

#[test]
fn response_future_and_associated_types_may_repeat() {
    let found = clean("types_excepted")
        .append(
            "src/job/id.rs",
            "\nimpl T for Id {\n    type Owner = ();\n}\nstruct ResponseFuture;\n",
        )
        .append("src/job/owner.rs", "\npub struct ResponseFuture;\n")
        .check("types");
    assert_eq!(found, "");
}

#[test]
fn types_of_two_features_may_share_a_name() {
    let found = clean("types_features")
        .append(
            "src/job/mod.rs",
            "\n#[cfg(feature = \"a\")]\nmod on;\n#[cfg(not(feature = \"a\"))]\nmod off;\n",
        )
        .file("src/job/on.rs", "//! A.\n\npub struct Recorder;\n")
        .file("src/job/off.rs", "//! A.\n\npub struct Recorder;\n")
        .check("types");
    assert_eq!(found, "");
}

#[test]
fn binary_may_have_a_type_of_the_library() {
    let tree = clean("types_binary").file("src/bin/x.rs", "//! A.\n\nstruct Owner;\n");
    assert_eq!(tree.check("types"), "");
}

#[test]
fn names_of_hyper_and_its_body_are_taken() {
    let found = clean("types_taken")
        .append("src/job/id.rs", "\nstruct Incoming;\n")
        .check("types");
    assert!(found.contains("src/job/id.rs:5: `Incoming` is the name of a type in hyper"));
}

#[test]
fn test_name_of_51_letters_is_found() {
    let long = "x".repeat(51);
    let short = "x".repeat(50);
    let text = format!(
        "//! A.\n\n#[tokio::test(start_paused = true)]\nasync fn {short}() {{}}\n\n\
         proptest! {{\n    #[test]\n    fn {long}(x in 0..1) {{}}\n}}\n"
    );
    let helper = format!("\n#[cfg(test)]\npub fn {long}() {{}}\n");
    let found = clean("test_names")
        .file("benches/speed.rs", &text)
        .append("src/job/id.rs", &helper)
        .check("test-names");
    assert!(found.starts_with("benches/speed.rs:8: `xxx"), "{found}");
    assert_eq!(found.lines().count(), 1, "{found}");
}

#[test]
fn function_of_a_suite_has_a_test_name() {
    let text = format!("pub async fn {}() {{}}\n", "x".repeat(51));
    let found = clean("suite_names")
        .file("tests/suites/mod.rs", &text)
        .check("test-names");
    assert!(found.starts_with("tests/suites/mod.rs:1: "), "{found}");
}
