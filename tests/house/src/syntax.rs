//! Rules on syntax, and what other rules read from it.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Arm, Attribute, ExprMatch, Ident, Item, Lit, Meta, Pat,
    ext::IdentExt,
    parse::Parser,
    punctuated::Punctuated,
    spanned::Spanned,
    visit::{self, Visit},
};

use crate::{Checkout, Offence, text::CODE};

pub(crate) fn parse(checkout: &Checkout) -> Vec<Offence> {
    checkout
        .rust(CODE)
        .filter_map(|(path, text)| {
            let error = syn::parse_file(text).err()?;
            Some(Offence::new(
                path,
                error.span().start().line,
                format!("cannot parse: {error}"),
            ))
        })
        .collect()
}

pub(crate) fn bools(checkout: &Checkout) -> Vec<Offence> {
    let mut offences = Vec::new();
    for (path, text) in checkout.rust(&["src"]) {
        if let Ok(file) = syn::parse_file(text) {
            Bools {
                path,
                offences: &mut offences,
            }
            .visit_file(&file);
        }
    }
    offences
}

struct Bools<'a> {
    path: &'a str,
    offences: &'a mut Vec<Offence>,
}

impl<'ast> Visit<'ast> for Bools<'_> {
    fn visit_expr_match(&mut self, node: &'ast ExprMatch) {
        let is_bool =
            |arm: &Arm| matches!(&arm.pat, Pat::Lit(lit) if matches!(lit.lit, Lit::Bool(_)));
        if node.arms.iter().any(is_bool) {
            let line = node.match_token.span.start().line;
            let text = "`match` on a bool: write `if` and `else`";
            self.offences.push(Offence::new(self.path, line, text));
        }
        visit::visit_expr_match(self, node);
    }
}

/// Returns the name without `r#`.
pub(crate) fn name(ident: &Ident) -> String {
    ident.unraw().to_string()
}

/// Returns the line on which an item or a path starts.
pub(crate) fn line(spanned: &impl Spanned) -> usize {
    spanned.span().start().line
}

/// Returns whether something with these attributes is compiled for tests only.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_test_function = attribute
            .path()
            .segments
            .last()
            .is_some_and(|segment| segment.ident == "test");
        is_test_function || cfg(attribute).is_some_and(|predicate| implies_test(&predicate))
    })
}

/// Returns the predicates of `#[cfg(…)]`, without spaces.
pub(crate) fn cfgs(attributes: &[Attribute]) -> Vec<String> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .filter_map(|attribute| Some(attribute.meta.require_list().ok()?.tokens.to_string()))
        .map(|predicate| predicate.replace(' ', ""))
        .collect()
}

/// Returns whether no build has both, since one has a predicate that the other negates.
pub(crate) fn exclude(one: &[String], other: &[String]) -> bool {
    let negates = |a: &String, b: &String| *a == format!("not({b})");
    one.iter()
        .any(|a| other.iter().any(|b| negates(a, b) || negates(b, a)))
}

fn cfg(attribute: &Attribute) -> Option<Meta> {
    attribute
        .path()
        .is_ident("cfg")
        .then(|| attribute.parse_args().ok())?
}

fn implies_test(predicate: &Meta) -> bool {
    let Meta::List(list) = predicate else {
        return predicate.path().is_ident("test");
    };
    let inner = Punctuated::<Meta, syn::Token![,]>::parse_terminated
        .parse2(list.tokens.clone())
        .unwrap_or_default();
    if list.path.is_ident("all") {
        inner.iter().any(implies_test)
    } else {
        list.path.is_ident("any") && !inner.is_empty() && inner.iter().all(implies_test)
    }
}

pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Collects all identifiers, those in macro arguments included.
pub(crate) fn idents(tokens: TokenStream, found: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => idents(group.stream(), found),
            TokenTree::Ident(ident) => drop(found.replace(name(&ident))),
            _ => {}
        }
    }
}
