use crate::support::clean;

#[test]
fn circle_through_a_reexport_names_the_import() {
    let found = clean("circle_reexport")
        .append(
            "src/protocol/mod.rs",
            "\nmod prefer;\npub use self::prefer::Prefer;\n",
        )
        .file(
            "src/protocol/prefer.rs",
            "//! A.\n\nuse super::Accept;\n\npub struct Prefer(Accept);\n",
        )
        .append(
            "src/protocol/accept.rs",
            "\npub fn f(_: crate::protocol::Prefer) {}\n",
        )
        .check("circles");
    assert!(
        found.contains(
            "src/protocol/accept.rs:5: imports `Prefer`, defined in src/protocol/prefer.rs"
        ),
        "{found}"
    );
    assert!(
        found.contains(
            "src/protocol/prefer.rs:3: imports `Accept`, defined in src/protocol/accept.rs"
        ),
        "{found}"
    );
    assert!(found.contains("circle of 2"), "{found}");
}

#[test]
fn circle_of_three_cuts_the_import_that_opens_it() {
    let found = clean("circle_cut")
        .file("src/lib.rs", "//! A.\n\nmod a;\nmod b;\nmod c;\n")
        .file(
            "src/a.rs",
            "//! A.\n\nuse crate::{b::{B, B2}, c::C};\n\npub struct A;\n",
        )
        .file(
            "src/b.rs",
            "//! B.\n\nuse crate::c::{self, C};\n\npub struct B;\npub struct B2;\n",
        )
        .file(
            "src/c.rs",
            "//! C.\n\nuse crate::a as first;\n\npub struct C(first::A);\n",
        )
        .check("circles");
    assert!(
        found.contains("To open it, cut src/c.rs -> src/a.rs\n"),
        "{found}"
    );
    assert!(
        found.contains("src/c.rs:5: imports `A`, defined in src/a.rs: remove it"),
        "{found}"
    );
}

#[test]
fn circle_of_folders_is_found_without_one_of_files() {
    let tree = clean("circle_folders")
        .append("src/protocol/mod.rs", "\nmod lease;\n")
        .file(
            "src/protocol/lease.rs",
            "//! A.\n\nuse crate::job::id::Id;\n",
        );
    assert_eq!(tree.check("circles"), "");
    let found = tree.check("folders");
    assert!(found.contains("circle of 2: job, protocol"), "{found}");
    assert!(
        found.contains("src/protocol/lease.rs:3: imports `Id`"),
        "{found}"
    );
}

#[test]
fn flat_file_counts_as_a_folder() {
    let found = clean("circle_flat")
        .append("src/lib.rs", "mod stop;\n")
        .file(
            "src/stop.rs",
            "//! A.\n\nuse crate::job::Owner;\n\npub struct Stop(Owner);\n",
        )
        .append("src/job/id.rs", "\npub fn f(_: crate::stop::Stop) {}\n")
        .check("folders");
    assert!(found.contains("circle of 2: job, stop"), "{found}");
}

#[test]
fn glob_counts_for_the_names_that_are_used() {
    let tree = clean("circle_glob")
        .append("src/job/mod.rs", "\nmod a;\nmod b;\n")
        .file(
            "src/job/a.rs",
            "//! A.\n\nuse super::b::*;\n\npub struct A(B);\n",
        )
        .file(
            "src/job/b.rs",
            "//! B.\n\npub struct B;\n\nmod c {\n    use super::super::*;\n}\n",
        );
    assert_eq!(tree.check("circles"), "");
    let found = tree
        .append("src/job/b.rs", "pub type C = a::A;\nuse super::*;\n")
        .check("circles");
    assert!(
        found.contains("src/job/b.rs:8: imports `A`, defined in src/job/a.rs"),
        "{found}"
    );
}

#[test]
fn mod_file_that_uses_its_export_imports_it() {
    let tree = clean("circle_export").append("src/job/owner.rs", "\nuse super::Limit;\n");
    let tree = tree.append("src/job/mod.rs", "\npub struct Limit;\n");
    assert_eq!(tree.check("circles"), "");
    let found = tree
        .append("src/job/mod.rs", "pub struct Two(Owner);\n")
        .check("circles");
    assert!(
        found.contains("src/job/mod.rs:9: imports `Owner`"),
        "{found}"
    );
}

#[test]
fn import_of_a_module_counts_for_what_is_used() {
    let found = clean("circle_module")
        .append("src/job/mod.rs", "\nuse crate::config::Settings;\n")
        .append(
            "src/config/mod.rs",
            "\nuse crate::job;\n\npub type Other = job::id::Id;\n",
        )
        .check("circles");
    assert_eq!(found, "");
}

#[test]
fn path_in_a_macro_is_an_import() {
    let found = clean("circle_macro")
        .append(
            "src/job/id.rs",
            "\nfn f() {\n    assert!(super::owner::Owner::is());\n}\n",
        )
        .check("circles");
    assert!(
        found.contains("src/job/id.rs:6: imports `Owner`"),
        "{found}"
    );
}

#[test]
fn tests_and_docs_import_freely() {
    let found = clean("circle_tests")
        .append(
            "src/job/id.rs",
            "\n/// See [`crate::job::Owner`].\npub struct Other;\n",
        )
        .append(
            "src/job/id.rs",
            "\n#[cfg(test)]\nuse super::Owner;\n#[cfg(test)]\nmod model;\n",
        )
        .file("src/job/id/model.rs", "//! A.\n\nuse crate::job::Owner;\n")
        .check_all();
    assert_eq!(found, "");
}

#[test]
fn module_with_a_path_or_a_cfg_is_read() {
    let found = clean("circle_path")
        .append(
            "src/job/mod.rs",
            "\n#[cfg(unix)]\n#[path = \"odd.rs\"]\nmod even;\n",
        )
        .file(
            "src/job/odd.rs",
            "//! A.\n\nuse super::owner::Owner;\n\npub struct Even(Owner);\n",
        )
        .append("src/job/owner.rs", "\nfn f(_: super::even::Even) {}\n")
        .check("circles");
    assert!(found.contains("src/job/owner.rs:7: imports `Even`, defined in src/job/odd.rs"));
}

#[test]
fn binary_is_a_crate_of_its_own() {
    let found = clean("circle_binary")
        .file("src/bin/x/main.rs", "//! A.\n\nmod a;\nmod b;\n")
        .file(
            "src/bin/x/a.rs",
            "//! A.\n\nuse crate::b::B;\n\npub struct A;\n",
        )
        .file(
            "src/bin/x/b.rs",
            "//! B.\n\nuse crate::a::A;\n\npub struct B;\n",
        )
        .check("circles");
    assert!(
        found.contains("circle of 2: src/bin/x/a.rs, src/bin/x/b.rs"),
        "{found}"
    );
}

#[test]
fn protocol_imports_nothing_of_the_crate() {
    let found = clean("layer_protocol")
        .append(
            "src/protocol/mod.rs",
            "\npub(crate) use crate::job::Owner;\n",
        )
        .check("layers");
    assert_eq!(
        found,
        "src/protocol/mod.rs:7: imports `Owner`, defined in src/job/owner.rs: \
         protocol imports nothing of the crate\n"
    );
}

#[test]
fn follow_and_webhook_import_protocol_alone() {
    for layer in ["follow", "webhook"] {
        let file = format!("src/{layer}/mod.rs");
        let found = clean(&format!("layer_{layer}"))
            .append("src/lib.rs", &format!("mod {layer};\n"))
            .file(
                &file,
                "//! A.\n\nuse crate::{job::Owner, protocol::Accept};\n",
            )
            .check("layers");
        assert!(
            found.starts_with(&format!("{file}:3: imports `Owner`")),
            "{found}"
        );
        assert_eq!(found.lines().count(), 1, "{found}");
    }
}

#[test]
fn config_imports_three_names_of_job() {
    let found = clean("layer_config")
        .append("src/config/mod.rs", "\nfn f(_: crate::job::id::Id) {}\n")
        .check("layers");
    assert!(
        found.contains("src/config/mod.rs:12: imports `Id`"),
        "{found}"
    );
}
