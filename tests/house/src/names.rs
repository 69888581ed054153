//! Rules on names: of types, and of tests.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::{
    Checkout, Offence,
    modules::{Crate, Definition},
    syntax,
    text::CODE,
};

/// Names of types that every middleware may have.
const SHARED: &[&str] = &["ResponseFuture"];

/// Names of types in crates that are read beside this one.
const TAKEN: &[(&str, &str)] = &[("Incoming", "hyper"), ("Collected", "http-body-util")];

const MAX_LETTERS: usize = 50;

pub(crate) fn types(checkout: &Checkout) -> Vec<Offence> {
    let mut offences = Vec::new();
    for tree in Crate::all(checkout) {
        let mut types = BTreeMap::<&str, Vec<(&str, &Definition)>>::new();
        for module in &tree.modules {
            for definition in module.definitions.iter().filter(|item| item.is_type) {
                let same = types.entry(&definition.name).or_default();
                same.push((&module.file, definition));
            }
        }
        for (name, same) in types {
            for (file, definition) in &same {
                if let Some((_, of)) = TAKEN.iter().find(|(taken, _)| *taken == name) {
                    let text = format!("`{name}` is the name of a type in {of}: rename it");
                    offences.push(Offence::new(file, definition.line, text));
                }
                let other = same.iter().find(|(_, other)| {
                    !std::ptr::eq(*other, *definition)
                        && !syntax::exclude(&other.cfgs, &definition.cfgs)
                });
                if let Some((at, other)) = other
                    && !SHARED.contains(&name)
                {
                    let text =
                        format!("`{name}` is defined in {at}:{} too: rename one", other.line);
                    offences.push(Offence::new(file, definition.line, text));
                }
            }
        }
    }
    offences
}

pub(crate) fn tests(checkout: &Checkout) -> Vec<Offence> {
    let mut offences = Vec::new();
    for (path, text) in checkout.rust(CODE) {
        if let Ok(tokens) = text.parse() {
            // Functions of a suite become tests by a macro, so that all count in `tests`.
            let any = path.starts_with("tests/");
            test_names(tokens, any, &mut |name, line| {
                let letters = name.chars().count();
                if letters > MAX_LETTERS {
                    let text = format!(
                        "`{name}` has {letters} letters: {MAX_LETTERS} are enough for a sentence"
                    );
                    offences.push(Offence::new(path, line, text));
                }
            });
        }
    }
    offences
}

/// Calls `found` with the name and line of each test function, or of `any` function.
pub(crate) fn test_names(tokens: TokenStream, any: bool, found: &mut impl FnMut(&str, usize)) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut is_test = false;
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| &tokens[before]);
        match (before, token) {
            (Some(TokenTree::Punct(hash)), TokenTree::Group(group))
                if hash.as_char() == '#' && group.delimiter() == Delimiter::Bracket =>
            {
                is_test |= names_test(group.stream());
            }
            (_, TokenTree::Group(group)) => {
                test_names(group.stream(), any, found);
                is_test &= group.delimiter() != Delimiter::Brace;
            }
            (Some(TokenTree::Ident(keyword)), TokenTree::Ident(name))
                if keyword == "fn" && (is_test || any) =>
            {
                found(&syntax::name(name), name.span().start().line);
            }
            _ => {}
        }
    }
}

/// Returns whether the attribute is `test`, `tokio::test` or the like.
fn names_test(attribute: TokenStream) -> bool {
    let path = attribute
        .into_iter()
        .take_while(|token| !matches!(token, TokenTree::Group(_)));
    let last = path.filter_map(|token| match token {
        TokenTree::Ident(ident) => Some(syntax::name(&ident)),
        _ => None,
    });
    last.last().is_some_and(|name| name == "test")
}
