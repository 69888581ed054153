//! Checks the rules of the house on a checkout: layout, imports, names, and line width.
//!
//! CONTRIBUTING.md explains the rules. Each one is a function from a [`Checkout`] to its offences.

mod checkout;
mod circle;
mod imports;
mod modules;
mod names;
mod offence;
mod resolve;
mod shape;
mod syntax;
mod text;
mod threats;

pub use crate::{checkout::Checkout, offence::Offence};

/// One rule of the house.
pub struct Rule {
    /// The name that `--only` takes.
    pub name: &'static str,
    /// The rule in one line.
    pub what: &'static str,
    /// Returns the offences in a checkout.
    pub check: fn(&Checkout) -> Vec<Offence>,
}

/// All rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "parse",
        what: "every .rs file parses",
        check: syntax::parse,
    },
    Rule {
        name: "circles",
        what: "no import circle between files",
        check: imports::circles,
    },
    Rule {
        name: "folders",
        what: "no import circle between folders",
        check: imports::folders,
    },
    Rule {
        name: "layers",
        what: "protocol, follow, webhook, config: few imports",
        check: imports::layers,
    },
    Rule {
        name: "flat",
        what: "at most eight files flat in src",
        check: shape::flat,
    },
    Rule {
        name: "length",
        what: "at most 500 lines a file",
        check: shape::length,
    },
    Rule {
        name: "heads",
        what: "a file opens with what it is for",
        check: shape::heads,
    },
    Rule {
        name: "width",
        what: "at most 100 columns",
        check: text::width,
    },
    Rule {
        name: "types",
        what: "no two types share a name",
        check: names::types,
    },
    Rule {
        name: "test-names",
        what: "at most 50 letters",
        check: names::tests,
    },
    Rule {
        name: "threats",
        what: "each threat has tests that exist",
        check: threats::tests_exist,
    },
    Rule {
        name: "bool-match",
        what: "`if` instead of `match` on a bool",
        check: syntax::bools,
    },
    Rule {
        name: "unsafe",
        what: "unsafe code is forbidden",
        check: shape::forbids_unsafe,
    },
    Rule {
        name: "prose",
        what: "plain English in comments",
        check: text::prose,
    },
];

/// Returns the offences against the rule of this name.
///
/// # Panics
///
/// If no rule has this name.
pub fn check(checkout: &Checkout, name: &str) -> Vec<Offence> {
    let rule = RULES
        .iter()
        .find(|rule| rule.name == name)
        .expect("the rule exists");
    (rule.check)(checkout)
}
