//! From a path to the file that defines what it names, through re-exports.

use std::collections::BTreeSet;

use crate::modules::{Crate, Import, Module};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Module(usize),
    /// An item of the module, or a name in it that only a macro knows.
    Item {
        module: usize,
        name: String,
    },
}

/// Names under resolution, with their modules. They end the circles of re-exports.
type Open = BTreeSet<(usize, String)>;

impl Crate {
    /// Returns what the path names as seen from a module; nothing if it is of another crate.
    pub(crate) fn resolve(&self, module: usize, segments: &[String]) -> BTreeSet<Target> {
        self.resolve_in(module, segments, &mut Open::new())
    }

    /// Returns what a name of a module stands for.
    pub(crate) fn look_up(&self, module: usize, name: &str) -> BTreeSet<Target> {
        self.look_up_in(module, name, &mut Open::new())
    }

    /// Returns all names of a module, those that it imports included.
    pub(crate) fn names(&self, module: usize) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let (mut open, mut seen) = (vec![module], BTreeSet::new());
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            let module = &self.modules[id];
            names.extend(
                module
                    .definitions
                    .iter()
                    .map(|definition| definition.name.clone()),
            );
            names.extend(
                module
                    .children
                    .iter()
                    .map(|child| self.modules[*child].name.clone()),
            );
            names.extend(
                module
                    .imports
                    .iter()
                    .filter_map(|import| import.name.clone()),
            );
            for glob in globs(module) {
                for target in self.resolve(id, &glob.path.segments) {
                    if let Target::Module(next) = target {
                        open.push(next);
                    }
                }
            }
        }
        names
    }

    fn resolve_in(&self, module: usize, segments: &[String], open: &mut Open) -> BTreeSet<Target> {
        let (mut here, mut rest) = (module, segments);
        let mut targets = BTreeSet::new();
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" => here = 0,
                "self" => {}
                "super" => here = self.modules[here].parent.unwrap_or(here),
                name => {
                    if rest.len() == segments.len() {
                        targets = self.look_up_in(here, name, open);
                    } else {
                        targets = self.member(here, name, open);
                    }
                    rest = after;
                    break;
                }
            }
            rest = after;
            targets = BTreeSet::from([Target::Module(here)]);
        }
        for name in rest {
            targets = targets
                .into_iter()
                .flat_map(|target| match target {
                    Target::Module(id) => self.member(id, name, open),
                    // A variant or an associated item, which belongs to its type.
                    item @ Target::Item { .. } => BTreeSet::from([item]),
                })
                .collect();
        }
        targets
    }

    /// Looks up a name that must be in the module, if only by a macro.
    fn member(&self, module: usize, name: &str, open: &mut Open) -> BTreeSet<Target> {
        let targets = self.look_up_in(module, name, open);
        let imported = || {
            let mut imports = self.modules[module].imports.iter();
            imports.any(|import| import.name.as_deref() == Some(name))
        };
        if targets.is_empty() && !imported() {
            return BTreeSet::from([Target::Item {
                module,
                name: name.to_owned(),
            }]);
        }
        targets
    }

    fn look_up_in(&self, id: usize, name: &str, open: &mut Open) -> BTreeSet<Target> {
        if !open.insert((id, name.to_owned())) {
            return BTreeSet::new();
        }
        let module = &self.modules[id];
        let mut targets = BTreeSet::new();
        let named = |child: &&usize| self.modules[**child].name == name;
        targets.extend(
            module
                .children
                .iter()
                .filter(named)
                .map(|child| Target::Module(*child)),
        );
        if module
            .definitions
            .iter()
            .any(|definition| definition.name == name)
        {
            targets.insert(Target::Item {
                module: id,
                name: name.to_owned(),
            });
        }
        for import in module
            .imports
            .iter()
            .filter(|i| i.name.as_deref() == Some(name))
        {
            targets.extend(self.resolve_in(id, &import.path.segments, open));
        }
        if targets.is_empty() {
            for glob in globs(module) {
                for target in self.resolve_in(id, &glob.path.segments, open) {
                    if let Target::Module(next) = target {
                        targets.extend(self.look_up_in(next, name, open));
                    }
                }
            }
        }
        open.remove(&(id, name.to_owned()));
        targets
    }
}

fn globs(module: &Module) -> impl Iterator<Item = &Import> {
    module.imports.iter().filter(|import| import.name.is_none())
}
