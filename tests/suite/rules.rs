//! The project's own rules, as tests.

use std::fs;
use std::path::{Path, PathBuf};

use ktables_tests::root;
use sha2::{Digest, Sha256};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, ImplItemFn, ItemFn, Signature};

/// The most lines of a function that needs no reason for its length.
const MAX_FUNCTION_LINES: usize = 60;

/// Returns every file in a folder whose name has this ending, except build output.
pub(crate) fn find_files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target" && name != ".git") {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {ending} in {folder}");
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn every_file_begins_with_module_documentation() {
    for path in find_files(".", ".rs") {
        assert!(read(&path).starts_with("//! "), "{} has no module documentation", path.display());
    }
}

#[test]
fn no_file_has_more_than_500_lines() {
    for path in find_files(".", ".rs") {
        let lines = read(&path).lines().count();
        assert!(lines <= 500, "{} has {lines} lines: split it, or except it here", path.display());
    }
}

#[test]
fn wasmtime_and_rdkafka_are_used_in_one_folder_each() {
    for (name, folder) in [("wasmtime", "host/src/wasm"), ("rdkafka", "host/src/log/kafka")] {
        for path in find_files("host/src", ".rs") {
            let uses = read(&path)
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(&format!("{name}::")));
            assert!(!uses || path.starts_with(root().join(folder)), "{} uses {name}", path.display());
        }
    }
}

/// Components that were built against a released package must load for ever, so its interfaces never change. A new
/// function needs a new interface, in a file of its own. Comments may become better.
#[test]
fn the_wit_package_is_frozen() {
    let mut digest = Sha256::new();
    let frozen_files = ["group-scheme", "key-codec", "logging", "plugin", "types", "value-codec", "worlds"];
    for file in frozen_files {
        let name = format!("0.1/{file}.wit");
        let text = read(&root().join("wit").join(&name));
        let code: Vec<&str> = text.split('\n').filter(|line| !line.trim_start().starts_with("//")).collect();
        for part in [name, code.join("\n")] {
            digest.update(part.as_bytes());
            digest.update([0]);
        }
    }
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let frozen = "24ee18987f646fe4ae5bb7abdff27164545e3d1e0e330fcb2d0ab20aa28a37c3";
    assert_eq!(digest, frozen, "ktables:codec@0.1.0 is frozen: add an interface instead");
}

#[test]
fn the_copies_of_the_wit_package_are_equal() {
    let read_folder = |folder: &str| -> Vec<(PathBuf, String)> {
        let base = root().join(folder);
        let files = find_files(folder, ".wit");
        files.iter().map(|path| (path.strip_prefix(&base).unwrap().to_owned(), read(path))).collect()
    };
    for copy in ["host/wit", "guest-sdk/rust/wit"] {
        assert_eq!(read_folder(copy), read_folder("wit"), "{copy} differs from wit: cp -r wit/. {copy}");
    }
}

#[test]
fn every_wit_item_is_documented() {
    for path in find_files("wit", ".wit") {
        let text = read(&path);
        let mut is_documented = false;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            let is_item =
                line.ends_with('{') || line.ends_with(';') || (line.ends_with(',') && !line.starts_with('}'));
            let is_exempt =
                ["//", "package ", "use ", "export ", "import "].iter().any(|start| line.starts_with(start));
            let is_missing = is_item && !is_exempt && !is_documented;
            assert!(!is_missing, "{}:{number}: {line} is not documented", path.display());
            is_documented = line.starts_with("///") || (is_documented && line.is_empty());
        }
    }
}

#[test]
fn the_codecs_of_the_command_are_named_everywhere() {
    let folders = fs::read_dir(root().join("codecs")).unwrap().map(|entry| entry.unwrap().file_name());
    for name in folders.filter(|name| name != "framing") {
        for file in
            ["command/build.rs", "host/src/config/bundled.rs", "xtask/src/guests.rs", "xtask/src/fuzz.rs"]
        {
            assert!(read(&root().join(file)).contains(&format!("{name:?}")), "{file} does not name {name:?}");
        }
    }
}

#[test]
fn every_test_guest_has_a_test() {
    let suite: String = find_files("tests/suite", ".rs").iter().map(|path| read(path)).collect();
    for guest in fs::read_dir(root().join("tests/guests")).unwrap() {
        let folder = guest.unwrap().path();
        // A folder is a package, or has a guest in each of its files.
        let guests = match folder.join("Cargo.toml").exists() {
            true => vec![folder],
            false => fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect(),
        };
        for name in guests.iter().map(|guest| guest.file_stem().unwrap().to_str().unwrap()) {
            assert!(suite.contains(&format!("{name:?}")), "no test names the guest {name}");
        }
    }
}

#[test]
fn the_tests_that_the_contract_names_exist() {
    let text = read(&root().join("docs/contract.md"));
    let is_name = |code: &&str| {
        let rest =
            code.trim_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':');
        code.contains("::") && rest.is_empty()
    };
    // The pieces between backticks are text and code by turns.
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.rsplit(" | ").next());
    let named: Vec<&str> =
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter(is_name).collect();
    assert!(named.len() > 150, "{} tests are named", named.len());
    for name in named {
        let (folder, name) = match name.strip_prefix("ktables::") {
            Some(unit) => ("host/src", unit.replace("::tests::", "::")),
            None => (
                "tests/suite",
                name.trim_end_matches("::on_kafka").trim_end_matches("::in_a_directory").into(),
            ),
        };
        let (module, test) = name.rsplit_once("::").unwrap();
        let path = root().join(folder).join(format!("{}.rs", module.replace("::", "/")));
        let is_named = path.exists() && read(&path).contains(&format!("fn {test}("));
        assert!(is_named, "{name} is not a test in {}", path.display());
    }
}

#[test]
fn ci_runs_the_readmes_test_command() {
    assert!(read(&root().join(".ci/run")).contains("cargo xtask test"));
    assert!(read(&root().join("README.md")).contains("cargo xtask test"));
}

/// Counts the lines of functions.
struct FunctionLengths(Vec<(String, usize, usize)>);

impl FunctionLengths {
    fn add(&mut self, signature: &Signature, block: &Block) {
        let (first, last) = (signature.fn_token.span().start().line, block.span().end().line);
        self.0.push((signature.ident.to_string(), first, last + 1 - first));
    }
}

impl<'ast> Visit<'ast> for FunctionLengths {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }
}

#[test]
fn long_functions_have_a_reason() {
    for path in find_files(".", ".rs") {
        let text = read(&path);
        let mut lengths = FunctionLengths(Vec::new());
        lengths.visit_file(&syn::parse_file(&text).unwrap());
        let lines: Vec<&str> = text.lines().collect();
        for (name, first, len) in lengths.0.into_iter().filter(|(_, _, len)| *len > MAX_FUNCTION_LINES) {
            // Above the function and its attributes.
            let above = lines[..first - 1].iter().rev().take(4);
            let has_reason = above.into_iter().any(|line| line.trim_start().starts_with("// Long because "));
            assert!(has_reason, "{}: {name} has {len} lines: split it, or say why not", path.display());
        }
    }
}
