//! Rules on imports: they point one way, between files and between folders.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Checkout, Offence,
    circle::{self, Graph},
    modules::{Crate, Import, Mention},
    resolve::Target,
};

/// Entries of `src` that import from few others of the crate.
const LAYERS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("follow", &["protocol"]),
    ("webhook", &["protocol"]),
];

/// All that `config` imports of `job`.
const JOB_NAMES: &[&str] = &["Owner", "Fingerprint", "IdText"];

/// An import or a path, from its file to the file that defines the name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: String,
    to: String,
    name: String,
    line: usize,
    is_export: bool,
}

pub(crate) fn circles(checkout: &Checkout) -> Vec<Offence> {
    let mut offences = Vec::new();
    for tree in Crate::all(checkout) {
        let edges = edges(&tree).into_iter().filter(|edge| !edge.is_export);
        report(
            edges.map(|edge| (edge.from.clone(), edge.to.clone(), edge)),
            &mut offences,
        );
    }
    offences
}

pub(crate) fn folders(checkout: &Checkout) -> Vec<Offence> {
    let mut offences = Vec::new();
    let edges = library(checkout).into_iter().filter(|edge| !edge.is_export);
    let between = edges.filter_map(|edge| {
        let (from, to) = (entry(&edge.from)?.to_owned(), entry(&edge.to)?.to_owned());
        (from != to).then_some((from, to, edge))
    });
    report(between, &mut offences);
    offences
}

pub(crate) fn layers(checkout: &Checkout) -> Vec<Offence> {
    let mut offences = Vec::new();
    for edge in library(checkout) {
        let (Some(from), Some(to)) = (entry(&edge.from), entry(&edge.to)) else {
            continue;
        };
        let Edge { name, to: file, .. } = &edge;
        let mut add = |rule: String| {
            let text = format!("imports `{name}`, defined in {file}: {rule}");
            offences.push(Offence::new(&edge.from, edge.line, text));
        };
        if let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == from) {
            if from != to && !allowed.contains(&to) {
                let allowed = if allowed.is_empty() {
                    "nothing"
                } else {
                    &allowed.join(", ")
                };
                add(format!("{from} imports {allowed} of the crate"));
            }
        } else if from == "config" && to == "job" && !JOB_NAMES.contains(&name.as_str()) {
            add(format!(
                "config imports only {} of job",
                JOB_NAMES.join(", ")
            ));
        }
    }
    offences
}

/// Returns the folder of `src` that a file is in; a flat file counts as a folder.
fn entry(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    let entry = inside.split('/').next()?;
    (entry != "lib.rs").then(|| entry.strip_suffix(".rs").unwrap_or(entry))
}

/// Reports each circle, and in it first the edges that open it.
fn report(edges: impl Iterator<Item = (String, String, Edge)>, offences: &mut Vec<Offence>) {
    let edges: Vec<_> = edges.collect();
    let mut graph = Graph::new();
    for (from, to, _) in &edges {
        *graph.entry((from, to)).or_default() += 1;
    }
    for circle in circle::circles(&graph) {
        let nodes: Vec<_> = circle.nodes.iter().copied().collect();
        let start = edges
            .iter()
            .find(|(from, ..)| from == nodes[0])
            .expect("a node has an edge");
        let cuts: Vec<_> = circle
            .cuts
            .iter()
            .map(|(from, to)| format!("{from} -> {to}"))
            .collect();
        let text = format!(
            "circle of {}: {}. To open it, cut {}",
            nodes.len(),
            nodes.join(", "),
            cuts.join(", ")
        );
        offences.push(Offence::new(&start.2.from, start.2.line, text));
        let (cut, others): (Vec<_>, Vec<_>) = edges
            .iter()
            .filter(|(from, to, _)| {
                circle.nodes.contains(from.as_str()) && circle.nodes.contains(to.as_str())
            })
            .partition(|(from, to, _)| circle.cuts.contains(&(from.as_str(), to.as_str())));
        for (edges, advice) in [
            (cut, "remove it to open the circle"),
            (others, "in the circle"),
        ] {
            offences.extend(edges.into_iter().map(|(_, _, edge)| {
                let text = format!("imports `{}`, defined in {}: {advice}", edge.name, edge.to);
                Offence::new(&edge.from, edge.line, text)
            }));
        }
    }
}

fn library(checkout: &Checkout) -> BTreeSet<Edge> {
    edges(&Crate::read(checkout, "src/lib.rs"))
}

/// Returns the edges between different files, each name once with its first line.
fn edges(tree: &Crate) -> BTreeSet<Edge> {
    let mut first = BTreeMap::<(String, String, String, bool), usize>::new();
    let mut add = |module: usize, path: &Mention, targets: BTreeSet<Target>, is_export: bool| {
        let from = &tree.modules[module].file;
        for target in targets {
            let (defined, name) = match target {
                Target::Item { module, name } => (module, name),
                Target::Module(id) if is_export => (id, tree.modules[id].name.clone()),
                // The paths that start with the module count instead.
                Target::Module(_) => continue,
            };
            let to = &tree.modules[defined].file;
            if from != to {
                let line = first
                    .entry((from.clone(), to.clone(), name, is_export))
                    .or_insert(path.line);
                *line = path.line.min(*line);
            }
        }
    };
    for (id, module) in tree.modules.iter().enumerate() {
        for import in &module.imports {
            let targets = if import.name.is_some() {
                tree.resolve(id, &import.path.segments)
            } else {
                glob(tree, id, import)
            };
            add(id, &import.path, targets, import.is_export);
        }
        for mention in &module.mentions {
            add(id, mention, tree.resolve(id, &mention.segments), false);
        }
    }
    first
        .into_iter()
        .map(|((from, to, name, is_export), line)| Edge {
            from,
            to,
            name,
            line,
            is_export,
        })
        .collect()
}

/// Returns what a glob brings into a file that mentions it, and all traits, which need no mention.
fn glob(tree: &Crate, module: usize, import: &Import) -> BTreeSet<Target> {
    let mut targets = BTreeSet::new();
    for target in tree.resolve(module, &import.path.segments) {
        let Target::Module(from) = target else {
            targets.insert(target); // the variants of an enum
            continue;
        };
        for name in tree.names(from) {
            let found = tree.look_up(from, &name);
            let is_trait = |target: &Target| match target {
                Target::Item { module, name } => {
                    let mut definitions = tree.modules[*module].definitions.iter();
                    definitions.any(|item| item.is_trait && item.name == *name)
                }
                Target::Module(_) => false,
            };
            if import.is_export
                || tree.modules[module].idents.contains(&name)
                || found.iter().any(is_trait)
            {
                targets.extend(found);
            }
        }
    }
    targets
}
