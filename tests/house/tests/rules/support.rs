//! Checkouts to plant offences in.

use std::{fs, path::PathBuf};

use house::Checkout;

/// A checkout in a temporary folder.
pub(crate) struct Tree {
    root: PathBuf,
}

/// Creates a checkout that keeps all rules. The name is that of the test.
pub(crate) fn clean(name: &str) -> Tree {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&root);
    Tree { root }
        .file(
            "Cargo.toml",
            "[package]\nname = \"x\"\n\n[lints.rust]\nunsafe_code = \"forbid\"\n",
        )
        .file("README.md", "# x\n\nA crate.\n")
        .file(
            "src/lib.rs",
            "//! A crate.\n\nmod config;\nmod job;\nmod protocol;\n",
        )
        .file(
            "src/protocol/mod.rs",
            "//! HTTP.\n\nmod accept;\n\npub use self::accept::Accept;\n",
        )
        .file(
            "src/protocol/accept.rs",
            "//! The header.\n\npub struct Accept;\n",
        )
        .file(
            "src/job/mod.rs",
            "//! Jobs.\n\nmod id;\nmod owner;\n\npub use self::owner::Owner;\n",
        )
        .file("src/job/id.rs", "//! Ids.\n\npub struct Id;\n")
        .file(
            "src/job/owner.rs",
            "//! Owners.\n\nuse super::id::Id;\n\npub struct Owner(Id, crate::protocol::Accept);\n",
        )
        .file(
            "src/config/mod.rs",
            "//! Settings.\n\nuse crate::job::Owner;\n\npub struct Settings(Owner);\n\n\
             #[cfg(test)]\nmod tests {\n    use crate::job::id::Id;\n}\n",
        )
}

impl Tree {
    pub(crate) fn file(self, path: &str, text: &str) -> Self {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Appends to the text of a file.
    pub(crate) fn append(self, path: &str, text: &str) -> Self {
        let before = fs::read_to_string(self.root.join(path)).unwrap();
        self.file(path, &format!("{before}{text}"))
    }

    /// Returns the offences against a rule, a line for each.
    pub(crate) fn check(&self, rule: &str) -> String {
        let checkout = Checkout::read(&self.root).unwrap();
        house::check(&checkout, rule)
            .iter()
            .map(|offence| format!("{offence}\n"))
            .collect()
    }

    /// Returns the offences against all rules, a line for each.
    pub(crate) fn check_all(&self) -> String {
        house::RULES
            .iter()
            .map(|rule| self.check(rule.name))
            .collect()
    }
}
