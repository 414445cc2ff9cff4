//! Checks the architecture of the host crate: which layer may use which, and that files have no cycles.
//!
//! The test parses every source file, resolves each path within the crate (in `use` declarations and in code)
//! to the file that defines its target, and checks the resulting graph. It ignores code that is compiled for
//! tests only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use ktables_tests::root;
use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use syn::visit::{self, Visit};
use syn::{Attribute, File, Ident, Item, ItemMod, ItemUse, UseTree, Visibility};

use crate::rules::find_files;

/// The layers from the bottom up. A module may use modules of the layers below it, and files within its own
/// top-level module, but no other module of its layer.
const LAYERS: &[&[&str]] = &[
    &["escape", "file", "packed", "sync", "thread", "time"],
    &["memory", "private"],
    &["log", "oci"],
    &["codec", "checkpoint"],
    &["registry"],
    &["table", "wasm"],
    &["writer"],
    &["config", "wire"],
    &["authors", "serve"],
    &["cli"],
    &["fuzzing"],
];

/// The sources of a crate: the text of each module, by its path (empty for the root).
type Sources = BTreeMap<Vec<String>, String>;

/// A module: the paths that it uses, and the names that it re-exports from other modules.
#[derive(Default)]
struct Module {
    /// The absolute paths that it uses.
    names: BTreeSet<Vec<String>>,
    /// The absolute path of each re-exported name.
    exports: BTreeMap<String, Vec<String>>,
    /// The identifiers in its own code.
    identifiers: BTreeSet<String>,
}

/// Collects the paths that a file uses.
struct Collector<'a> {
    path: &'a [String],
    module: Module,
}

/// Returns whether attributes restrict an item to tests.
fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg = attribute.path().is_ident("cfg");
        let condition = attribute.meta.require_list().map(|list| list.tokens.to_string());
        is_cfg && condition.is_ok_and(|condition| matches!(&*condition, "test" | "doctest"))
    })
}

impl Collector<'_> {
    /// Returns the absolute form of a path that begins with `crate`, `self`, `super`, or a child module.
    /// `None` for other paths.
    fn absolute(&self, segments: &[String], children: &BTreeSet<String>) -> Option<Vec<String>> {
        let mut absolute = match segments.first()?.as_str() {
            "crate" => Vec::new(),
            "self" => self.path.to_vec(),
            "super" => self.path.split_last()?.1.to_vec(),
            child if children.contains(child) => {
                return Some(self.path.iter().chain(segments).cloned().collect());
            }
            _ => return None,
        };
        for segment in &segments[1..] {
            match segment.as_str() {
                "super" => drop(absolute.pop()),
                segment => absolute.push(segment.to_owned()),
            }
        }
        Some(absolute)
    }

    fn collect(&mut self, file: &File) {
        let children = file.items.iter().filter_map(|item| match item {
            Item::Mod(module) if !is_test_only(&module.attrs) => Some(module.ident.to_string()),
            _ => None,
        });
        let children: BTreeSet<String> = children.collect();
        for item in &file.items {
            if let Item::Use(item) = item
                && !is_test_only(&item.attrs)
            {
                self.collect_use(item, &children);
            }
        }
        self.visit_file(file);
        // A file that uses a name that it re-exports also uses the file that defines the name.
        let Module { names, exports, identifiers } = &mut self.module;
        names.extend(
            exports.iter().filter(|(name, _)| identifiers.contains(*name)).map(|(_, path)| path.clone()),
        );
    }

    fn collect_use(&mut self, item: &ItemUse, children: &BTreeSet<String>) {
        let is_export = !matches!(item.vis, Visibility::Inherited);
        for (path, name) in flatten(&item.tree, Vec::new()) {
            let Some(absolute) = self.absolute(&path, children) else { continue };
            assert!(name != "*" || is_test_only(&item.attrs), "{absolute:?}: import each name, without `*`");
            match is_export {
                true => drop(self.module.exports.insert(name, absolute)),
                false => drop(self.module.names.insert(absolute)),
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Use(_) => return,
            _ => return visit::visit_item(self, item),
        };
        if !is_test_only(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if matches!(segments[0].as_str(), "crate" | "super" | "self")
            && segments.len() > 1
            && let Some(absolute) = self.absolute(&segments, &BTreeSet::new())
        {
            self.module.names.insert(absolute);
        }
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {
        // The path in `pub(in path)` is not a use.
    }

    fn visit_ident(&mut self, ident: &'ast Ident) {
        self.module.identifiers.insert(ident.to_string());
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let tokens = called.tokens.to_string();
        let words = tokens.split(|c: char| !c.is_alphanumeric() && c != '_');
        self.module.identifiers.extend(words.map(str::to_owned));
        visit::visit_macro(self, called);
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        // In an inline module, `self` and `super` have another meaning, which this test does not support.
        assert!(module.content.is_none() || module.ident == "v0_1", "{}", module.ident);
        visit::visit_item_mod(self, module);
    }
}

/// Returns the paths of a `use` tree, each with the name that it brings into scope.
fn flatten(tree: &UseTree, mut path: Vec<String>) -> Vec<(Vec<String>, String)> {
    match tree {
        UseTree::Path(tree) => {
            path.push(tree.ident.to_string());
            flatten(&tree.tree, path)
        }
        UseTree::Name(tree) if tree.ident == "self" => {
            let name = path.last().cloned().unwrap_or_default();
            vec![(path, name)]
        }
        UseTree::Name(tree) => {
            path.push(tree.ident.to_string());
            vec![(path, tree.ident.to_string())]
        }
        UseTree::Rename(tree) => {
            path.push(tree.ident.to_string());
            vec![(path, tree.rename.to_string())]
        }
        UseTree::Glob(_) => vec![(path, "*".to_owned())],
        UseTree::Group(tree) => tree.items.iter().flat_map(|item| flatten(item, path.clone())).collect(),
    }
}

/// Returns the module that defines the target of a path. Follows re-exports.
fn definition(modules: &BTreeMap<Vec<String>, Module>, path: &[String]) -> Vec<String> {
    let is_module = |len: &usize| modules.contains_key(&path[..*len]);
    let len = (0..=path.len()).rev().find(is_module).unwrap_or(0);
    let (module, rest) = path.split_at(len);
    let Some(name) = rest.first() else { return module.to_vec() };
    match modules[module].exports.get(name) {
        Some(target) => {
            let target: Vec<String> = target.iter().chain(&rest[1..]).cloned().collect();
            definition(modules, &target)
        }
        None => module.to_vec(),
    }
}

/// Returns the index of a module's layer.
fn layer_of(module: &[String]) -> Option<usize> {
    let top = module.first()?;
    LAYERS.iter().position(|layer| layer.contains(&top.as_str()))
}

/// Returns all violations of the architecture in some sources.
fn find_problems(sources: &Sources) -> Vec<String> {
    let mut modules = BTreeMap::new();
    for (path, source) in sources {
        let file = syn::parse_file(source).unwrap_or_else(|error| panic!("{}: {error}", path.join("::")));
        let mut collector = Collector { path, module: Module::default() };
        collector.collect(&file);
        modules.insert(path.clone(), collector.module);
    }
    let mut problems = Vec::new();
    let mut edges = BTreeSet::new();
    for (from, module) in &modules {
        for name in &module.names {
            let to = definition(&modules, name);
            // The root module only re-exports and documents.
            if to != *from && !from.is_empty() && !to.is_empty() {
                edges.insert((from.join("::"), to.join("::")));
                let is_same = from[0] == to[0];
                match (layer_of(from), layer_of(&to)) {
                    (Some(own), Some(named)) if is_same || named < own => {}
                    (Some(_), Some(_)) => problems.push(format!(
                        "{} uses {}, which is not in a layer below it",
                        from.join("::"),
                        name.join("::")
                    )),
                    _ => problems.push(format!("{} or {} has no layer: add it to LAYERS", from[0], to[0])),
                }
            }
        }
    }
    let graph: DiGraphMap<&str, ()> = edges.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    for cycle in tarjan_scc(&graph).into_iter().filter(|cycle| cycle.len() > 1) {
        let within =
            |(from, to): &&(String, String)| cycle.contains(&from.as_str()) && cycle.contains(&to.as_str());
        let edges: Vec<String> =
            edges.iter().filter(within).map(|(from, to)| format!("{from} -> {to}")).collect();
        problems.push(format!("a cycle: {}", edges.join(", ")));
    }
    problems
}

/// Reads the sources of the host crate.
fn host_sources() -> Sources {
    let base = root().join("host/src");
    let mut sources = Sources::new();
    for path in find_files("host/src", ".rs") {
        let module = path.strip_prefix(&base).unwrap().with_extension("");
        let module: Vec<String> = module.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        let module = match module.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["lib"] => Vec::new(),
            _ => module,
        };
        sources.insert(module, fs::read_to_string(path).unwrap());
    }
    sources
}

#[test]
fn layers_use_only_lower_layers_and_files_have_no_cycles() {
    let problems = find_problems(&host_sources());
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The files that may send requests for codecs: the client, and those that it asks for a token and an explanation.
const SENDERS: [&str; 3] = ["auth", "client", "settings"];

#[test]
fn only_the_client_of_registries_sends_requests_for_codecs() {
    let sends = |source: &str| [".send()", "TcpStream", "connect("].iter().any(|call| source.contains(call));
    let mut senders = Vec::new();
    for (module, source) in host_sources() {
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        if module.first().is_some_and(|first| first == "oci") && sends(code) {
            senders.push(module[1..].join("::"));
        }
    }
    assert_eq!(senders, SENDERS);
}

#[test]
fn a_planted_cycle_and_a_planted_upward_import_are_found() {
    let plant = |module: &[&str], line: &str| {
        let mut sources = host_sources();
        let module: Vec<String> = module.iter().map(|&part| part.to_owned()).collect();
        let source = sources.get_mut(&module).unwrap_or_else(|| panic!("{module:?}"));
        let end = source.find("\n\n").unwrap();
        source.insert_str(end, &format!("\n{line}\n"));
        find_problems(&sources).join("\n")
    };
    // Modules, imports and paths in code, direct and through a re-export.
    for (module, line, expected) in [
        (&["table", "entry"][..], "use crate::table::view::View;", "a cycle"),
        (&["table", "entry"], "use crate::table::Table;", "a cycle"),
        (&["table", "entry"], "fn f() { crate::table::shared::Shared::new() }", "a cycle"),
        (&["table", "view", "deadlines"], "use super::View;", "a cycle"),
        (&["log", "record"], "use crate::codec::Codecs;", "not in a layer below"),
        (&["wasm", "limits"], "use crate::table::{Entry, Table};", "not in a layer below"),
        (&["codec", "call"], "fn f() -> crate::wasm::Limits { todo!() }", "not in a layer below"),
    ] {
        let found = plant(module, line);
        assert!(found.contains(expected), "{module:?} {line}: {found}");
    }
}
