//! The command line of the house checks.

use std::{path::Path, process::ExitCode};

use house::{RULES, Rule};

const USAGE: &str = "usage: house [--only RULE]... [CHECKOUT]";

fn main() -> ExitCode {
    let mut only = Vec::new();
    let mut root = ".".to_owned();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--only" {
            let name = arguments.next().unwrap_or_default();
            let Some(rule) = RULES.iter().find(|rule| rule.name == name) else {
                return refuse(&format!("no rule is named `{name}`"));
            };
            only.push(rule);
        } else if argument.starts_with('-') {
            return refuse(&format!("unknown option `{argument}`"));
        } else {
            root = argument;
        }
    }
    if only.is_empty() {
        only.extend(RULES);
    }
    match run(Path::new(&root), &only) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => refuse(&error.to_string()),
    }
}

/// Checks the rules one by one, prints their offences, and returns how many there are.
fn run(root: &Path, rules: &[&Rule]) -> std::io::Result<usize> {
    let checkout = house::Checkout::read(root)?;
    let mut counts = Vec::new();
    for rule in rules {
        let offences = (rule.check)(&checkout);
        for offence in &offences {
            println!("{offence} [{}]", rule.name);
        }
        counts.push((rule, offences.len()));
    }
    for (rule, count) in &counts {
        if *count > 0 {
            eprintln!("{count:6} {:11} {}", rule.name, rule.what);
        }
    }
    Ok(counts.iter().map(|(_, count)| count).sum())
}

fn refuse(reason: &str) -> ExitCode {
    eprintln!("{reason}\n{USAGE}\nrules:");
    for rule in RULES {
        eprintln!("  {:11} {}", rule.name, rule.what);
    }
    ExitCode::from(2)
}
