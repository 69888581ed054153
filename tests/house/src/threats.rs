//! The rule on the threat model: each threat names tests that exist.

use std::collections::BTreeSet;

use crate::{Checkout, Offence, names, text::CODE};

const FILE: &str = "SECURITY.md";

/// Checks the last cell of each row of the tables in SECURITY.md.
pub(crate) fn tests_exist(checkout: &Checkout) -> Vec<Offence> {
    let mut offences = Vec::new();
    let tests = tests(checkout);
    let lines = checkout.get(FILE).unwrap_or_default().lines().enumerate();
    // Other tables of the file have a header without this word.
    let mut is_model = false;
    for (index, line) in lines {
        let Some(row) = line.strip_prefix('|') else {
            is_model = false;
            continue;
        };
        let last = row
            .trim_end_matches('|')
            .rsplit('|')
            .next()
            .unwrap_or_default();
        if last.trim() == "tests" {
            is_model = true;
        } else if is_model && !last.trim_matches(['-', ' ']).is_empty() {
            let mut names = last.split('`').skip(1).step_by(2).peekable();
            if names.peek().is_none() {
                offences.push(Offence::new(FILE, index + 1, "a threat without a test"));
            }
            for name in names.filter(|name| !tests.contains(*name)) {
                let text = format!("no test is named `{name}`");
                offences.push(Offence::new(FILE, index + 1, text));
            }
        }
    }
    offences
}

fn tests(checkout: &Checkout) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for (path, text) in checkout.rust(CODE) {
        if let Ok(tokens) = text.parse() {
            let any = path.starts_with("tests/suites/");
            names::test_names(tokens, any, &mut |name, _| {
                tests.insert(name.to_owned());
            });
        }
    }
    tests
}
