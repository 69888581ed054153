//! Rules on the number, length and opening of files.

use crate::{Checkout, Offence, text::CODE};

const MAX_FLAT: usize = 8;
const MAX_LINES: usize = 500;

pub(crate) fn flat(checkout: &Checkout) -> Vec<Offence> {
    let flat: Vec<_> = checkout
        .rust(&["src"])
        .filter(|(path, _)| path.matches('/').count() == 1)
        .collect();
    let text = format!(
        "one of {} files flat in src: move some into folders until {MAX_FLAT} are left",
        flat.len()
    );
    let over = flat.len() > MAX_FLAT;
    flat.iter()
        .filter(|_| over)
        .map(|(path, _)| Offence::new(path, 1, &text))
        .collect()
}

pub(crate) fn length(checkout: &Checkout) -> Vec<Offence> {
    checkout
        .rust(CODE)
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| {
            Offence::new(
                path,
                lines,
                format!("{lines} lines: split it, {MAX_LINES} are enough"),
            )
        })
        .collect()
}

pub(crate) fn heads(checkout: &Checkout) -> Vec<Offence> {
    checkout
        .rust(&["src"])
        .filter(|(_, text)| {
            let opening: Vec<_> = text
                .lines()
                .map_while(|line| line.strip_prefix("//!"))
                .take_while(|line| !line.trim().is_empty())
                .collect();
            !opening
                .last()
                .is_some_and(|line| line.trim_end().ends_with(['.', '?', ':']))
        })
        .map(|(path, _)| {
            Offence::new(
                path,
                1,
                "open the file with one `//!` sentence: what it is for",
            )
        })
        .collect()
}

pub(crate) fn forbids_unsafe(checkout: &Checkout) -> Vec<Offence> {
    let manifest = checkout.get("Cargo.toml").unwrap_or_default();
    let forbidden = manifest
        .lines()
        .skip_while(|line| line.trim() != "[lints.rust]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .any(|line| line.replace(' ', "").starts_with("unsafe_code=\"forbid\""));
    if forbidden {
        return Vec::new();
    }
    vec![Offence::new(
        "Cargo.toml",
        1,
        "put `unsafe_code = \"forbid\"` under [lints.rust]",
    )]
}
