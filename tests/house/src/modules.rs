//! The modules of a crate: what they define, import and mention.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Expr, Item, ItemMod, ItemUse, Lit, Macro, Meta, UseTree, Visibility,
    visit::{self, Visit},
};

use crate::{Checkout, syntax};

/// One crate: the library or a binary. The first module is its root.
pub(crate) struct Crate {
    pub(crate) modules: Vec<Module>,
}

pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) parent: Option<usize>,
    pub(crate) children: Vec<usize>,
    pub(crate) definitions: Vec<Definition>,
    pub(crate) imports: Vec<Import>,
    /// Paths outside `use` items.
    pub(crate) mentions: Vec<Mention>,
    /// All identifiers of the file.
    pub(crate) idents: BTreeSet<String>,
    cfgs: Vec<String>,
}

/// An item other than a module.
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) is_type: bool,
    pub(crate) is_trait: bool,
    pub(crate) cfgs: Vec<String>,
}

/// One name, or one glob, of a `use` item.
pub(crate) struct Import {
    /// The name that it brings in, or `None` for a glob.
    pub(crate) name: Option<String>,
    pub(crate) path: Mention,
    /// It has a visibility and stands in a `mod.rs` or `lib.rs`.
    pub(crate) is_export: bool,
}

pub(crate) struct Mention {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

impl Crate {
    /// Reads the crate with this root file. Modules that exist in tests only are left out.
    pub(crate) fn read(checkout: &Checkout, root: &str) -> Self {
        let mut tree = Self {
            modules: Vec::new(),
        };
        let folder = root
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder)
            .to_owned();
        tree.read_file(
            checkout,
            root.to_owned(),
            folder,
            "crate".to_owned(),
            None,
            Vec::new(),
        );
        tree
    }

    /// Reads the library of a checkout and then each of its binaries.
    pub(crate) fn all(checkout: &Checkout) -> Vec<Self> {
        let is_root = |path: &str| match path.split('/').collect::<Vec<_>>()[..] {
            ["src", file] => ["lib.rs", "main.rs"].contains(&file),
            ["src", "bin", _] | ["src", "bin", _, "main.rs"] => true,
            _ => false,
        };
        let sources = checkout.rust(&["src"]).map(|(path, _)| path);
        sources
            .filter(|path| is_root(path))
            .map(|path| Self::read(checkout, path))
            .collect()
    }

    /// Reads a file, whose modules have their files in `folder`.
    fn read_file(
        &mut self,
        checkout: &Checkout,
        file: String,
        folder: String,
        name: String,
        parent: Option<usize>,
        cfgs: Vec<String>,
    ) {
        let Some(syntax) = checkout
            .get(&file)
            .and_then(|text| syn::parse_file(text).ok())
        else {
            return; // rustc and the rule `parse` report it
        };
        if !syntax::is_test(&syntax.attrs) {
            self.add(checkout, (file, folder), name, parent, cfgs, &syntax.items);
        }
    }

    fn add(
        &mut self,
        checkout: &Checkout,
        (file, folder): (String, String),
        name: String,
        parent: Option<usize>,
        cfgs: Vec<String>,
        items: &[Item],
    ) {
        let id = self.modules.len();
        if let Some(parent) = parent {
            self.modules[parent].children.push(id);
        }
        let mut idents = BTreeSet::new();
        if let Ok(tokens) = checkout.get(&file).unwrap_or_default().parse() {
            syntax::idents(tokens, &mut idents);
        }
        let exports = file.ends_with("/mod.rs") || file.ends_with("/lib.rs");
        let mut reader = Reader {
            exports,
            imports: Vec::new(),
            mentions: Vec::new(),
        };
        let mut definitions = Vec::new();
        for item in items {
            if matches!(item, Item::Mod(_)) || syntax::is_test(syntax::attributes(item)) {
                continue;
            }
            reader.visit_item(item);
            definitions.extend(Definition::read(item, &cfgs));
            // Macros such as `pin_project! { struct … }` hold ordinary items.
            if let Item::Macro(item) = item
                && let Ok(inner) = syn::parse2::<syn::File>(item.mac.tokens.clone())
            {
                definitions.extend(inner.items.iter().flat_map(|i| Definition::read(i, &cfgs)));
            }
        }
        let Reader {
            imports, mentions, ..
        } = reader;
        self.modules.push(Module {
            name,
            file: file.clone(),
            parent,
            children: Vec::new(),
            definitions,
            imports,
            mentions,
            idents,
            cfgs,
        });
        for item in items {
            if let Item::Mod(item) = item
                && !syntax::is_test(&item.attrs)
            {
                self.add_child(checkout, item, id, &file, &folder);
            }
        }
    }

    fn add_child(
        &mut self,
        checkout: &Checkout,
        item: &ItemMod,
        parent: usize,
        file: &str,
        folder: &str,
    ) {
        let name = syntax::name(&item.ident);
        let inner = format!("{folder}/{name}");
        let mut cfgs = self.modules[parent].cfgs.clone();
        cfgs.extend(syntax::cfgs(&item.attrs));
        if let Some((_, items)) = &item.content {
            self.add(
                checkout,
                (file.to_owned(), inner),
                name,
                Some(parent),
                cfgs,
                items,
            );
            return;
        }
        let here = file.rsplit_once('/').map_or("", |(here, _)| here);
        let (file, folder) = if let Some(path) = path_attribute(&item.attrs) {
            let file = normalize(&format!("{here}/{path}"));
            let folder = file
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder)
                .to_owned();
            (file, folder)
        } else if checkout.get(&format!("{inner}/mod.rs")).is_some() {
            (format!("{inner}/mod.rs"), inner)
        } else {
            (format!("{inner}.rs"), inner)
        };
        self.read_file(checkout, file, folder, name, Some(parent), cfgs);
    }
}

impl Definition {
    fn read(item: &Item, cfgs: &[String]) -> Option<Self> {
        let (ident, is_type) = match item {
            Item::Const(item) => (&item.ident, false),
            Item::Enum(item) => (&item.ident, true),
            Item::Fn(item) => (&item.sig.ident, false),
            Item::Macro(item) => (item.ident.as_ref()?, false),
            Item::Static(item) => (&item.ident, false),
            Item::Struct(item) => (&item.ident, true),
            Item::Trait(item) => (&item.ident, true),
            Item::TraitAlias(item) => (&item.ident, true),
            Item::Type(item) => (&item.ident, true),
            Item::Union(item) => (&item.ident, true),
            _ => return None,
        };
        let mut cfgs = cfgs.to_vec();
        cfgs.extend(syntax::cfgs(syntax::attributes(item)));
        Some(Self {
            name: syntax::name(ident),
            line: syntax::line(ident),
            is_type,
            is_trait: matches!(item, Item::Trait(_)),
            cfgs,
        })
    }
}

/// Returns the value of `#[path = "…"]`.
fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        let Expr::Lit(value) = &pair.value else {
            return None;
        };
        let Lit::Str(text) = &value.lit else {
            return None;
        };
        pair.path.is_ident("path").then(|| text.value())
    })
}

/// Resolves `.` and `..` in a path.
fn normalize(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// Collects the imports and paths of items, except what exists in tests only.
struct Reader {
    exports: bool,
    imports: Vec<Import>,
    mentions: Vec<Mention>,
}

impl Reader {
    fn read_use(&mut self, tree: &UseTree, prefix: &[String], is_export: bool) {
        let (mut segments, mut local) = (prefix.to_vec(), None);
        match tree {
            UseTree::Path(path) => {
                segments.push(syntax::name(&path.ident));
                return self.read_use(&path.tree, &segments, is_export);
            }
            UseTree::Group(group) => {
                return group
                    .items
                    .iter()
                    .for_each(|tree| self.read_use(tree, prefix, is_export));
            }
            UseTree::Name(name) if name.ident == "self" => local = prefix.last().cloned(),
            UseTree::Rename(rename) if rename.ident == "self" => {
                local = Some(syntax::name(&rename.rename));
            }
            UseTree::Name(name) => {
                local = Some(syntax::name(&name.ident));
                segments.push(syntax::name(&name.ident));
            }
            UseTree::Rename(rename) => {
                local = Some(syntax::name(&rename.rename));
                segments.push(syntax::name(&rename.ident));
            }
            UseTree::Glob(_) => {}
        }
        let path = Mention {
            segments,
            line: syntax::line(tree),
        };
        self.imports.push(Import {
            name: local,
            path,
            is_export,
        });
    }

    /// Records the paths among tokens, which a macro may use as such.
    fn read_tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let is = |at: usize, sign: char| match tokens.get(at) {
            Some(TokenTree::Punct(punct)) => punct.as_char() == sign,
            _ => false,
        };
        let mut at = 0;
        while at < tokens.len() {
            let start = at;
            at += 1;
            match &tokens[start] {
                TokenTree::Group(group) => self.read_tokens(group.stream()),
                TokenTree::Ident(first) => {
                    let mut segments = vec![syntax::name(first)];
                    while is(at, ':')
                        && is(at + 1, ':')
                        && let Some(TokenTree::Ident(next)) = tokens.get(at + 2)
                    {
                        segments.push(syntax::name(next));
                        at += 3;
                    }
                    let is_rest = start > 1 && is(start - 1, ':') && is(start - 2, ':');
                    if segments.len() > 1 && !is_rest {
                        let line = first.span().start().line;
                        self.mentions.push(Mention { segments, line });
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() {
            let is_export = self.exports && !matches!(item.vis, Visibility::Inherited);
            self.read_use(&item.tree, &[], is_export);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        // A `mod.rs` may use what it exports by its bare name.
        let is_type = |ident: &syn::Ident| ident.to_string().starts_with(char::is_uppercase);
        let counts = path.segments.len() > 1 || self.exports && is_type(&path.segments[0].ident);
        if path.leading_colon.is_none() && counts {
            let segments = path
                .segments
                .iter()
                .map(|part| syntax::name(&part.ident))
                .collect();
            self.mentions.push(Mention {
                segments,
                line: syntax::line(path),
            });
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, node: &'ast Macro) {
        self.visit_path(&node.path);
        self.read_tokens(node.tokens.clone());
    }

    /// Reads paths in `#[serde(with = "…")]`; other attributes, as docs, import nothing.
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let Meta::List(list) = &attribute.meta else {
            return;
        };
        if !list.path.is_ident("serde") {
            return;
        }
        for token in list.tokens.clone() {
            if let TokenTree::Literal(literal) = token
                && let Lit::Str(text) = Lit::new(literal)
                && let Ok(path) = text.parse::<syn::Path>()
            {
                self.visit_path(&path);
            }
        }
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_item(&mut self, item: &'ast Item) {
        if !syntax::is_test(syntax::attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !syntax::is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !syntax::is_test(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        if !syntax::is_test(&variant.attrs) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !syntax::is_test(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_stmt_macro(&mut self, stmt: &'ast syn::StmtMacro) {
        if !syntax::is_test(&stmt.attrs) {
            visit::visit_stmt_macro(self, stmt);
        }
    }

    fn visit_expr_block(&mut self, block: &'ast syn::ExprBlock) {
        if !syntax::is_test(&block.attrs) {
            visit::visit_expr_block(self, block);
        }
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if !syntax::is_test(&arm.attrs) {
            visit::visit_arm(self, arm);
        }
    }
}
