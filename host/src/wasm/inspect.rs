//! Inspects a component without compiling or running it: finds its imports, exports and interfaces, and every
//! reason to refuse it.

use std::collections::BTreeSet;

use wasmparser::Parser;

use crate::wasm::imports::{WASI, judge_import};
use crate::wasm::interfaces::{Interface, PACKAGE, SUPPORTED_VERSIONS, is_supported, split_name};
use crate::wasm::scan::{MAX_BYTES, Needs, quote, scan_sections};

/// The imports and exports of a component, and the reasons to refuse it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// The names of the imports.
    pub imports: Vec<String>,
    /// The names of the exports.
    pub exports: Vec<String>,
    /// The exports that are interfaces of the host's WIT package in a supported version.
    pub interfaces: Vec<Interface>,
    /// The reasons to refuse the component, with what to do; empty if it is accepted. At most 20, and then how many more.
    pub refusals: Vec<String>,
    /// The resources that one instance needs.
    pub(super) needs: Needs,
}

/// How many reasons to refuse a component are listed: a hostile one may have thousands of wrong imports.
const MAX_REFUSALS: usize = 20;

/// Inspects the bytes of a component.
#[must_use]
pub fn inspect(bytes: &[u8]) -> Inspection {
    let mut inspection = Inspection::default();
    if bytes.len() > MAX_BYTES {
        inspection.refusals.push(format!("it has {} bytes, at most {MAX_BYTES} are allowed", bytes.len()));
    } else if Parser::is_core_wasm(bytes) {
        inspection.refusals.push(
            "it is a core module, not a component: run `ktables codec build CORE.wasm -o FILE.wasm`"
                .to_owned(),
        );
    } else if !Parser::is_component(bytes) {
        inspection.refusals.push("it is not a WebAssembly component".to_owned());
    } else {
        inspection.read_sections(bytes);
    }
    let more = inspection.refusals.len().saturating_sub(MAX_REFUSALS);
    if more > 0 {
        inspection.refusals.truncate(MAX_REFUSALS);
        inspection.refusals.push(format!("and for {more} more reasons"));
    }
    inspection
}

impl Inspection {
    /// Returns the versions of the host's WIT package that the exports name.
    #[must_use]
    pub fn versions(&self) -> BTreeSet<&str> {
        self.exports.iter().filter_map(|export| Some(split_name(export)?.1)).collect()
    }

    /// Whether the component imports WASI, which the host provides without access to anything outside.
    #[must_use]
    pub fn uses_wasi(&self) -> bool {
        self.imports.iter().any(|import| import.starts_with(WASI))
    }

    /// Collects the imports and exports of the outermost component, and checks its limits.
    fn read_sections(&mut self, bytes: &[u8]) {
        match scan_sections(bytes) {
            Err(refusal) => self.refusals = refusal.reasons(),
            Ok(found) => {
                (self.imports, self.exports, self.needs) = (found.imports, found.exports, found.needs);
                if found.is_async {
                    self.refusals.push(
                        "it exports asynchronous functions: build it with synchronous bindings".to_owned(),
                    );
                }
                self.check_names();
            }
        }
    }

    /// Checks the names of the imports and exports, and that there is a codec.
    fn check_names(&mut self) {
        for import in &self.imports {
            self.refusals.extend(judge_import(import).err());
        }
        for export in &self.exports {
            let Some((name, version)) = split_name(export) else { continue };
            let interface = Interface::ALL.into_iter().find(|interface| interface.name() == name);
            match interface {
                Some(interface) if is_supported(version) => self.interfaces.push(interface),
                Some(_) => self.refusals.push(format!(
                    "it exports {}, a version that this host does not support: rebuild it against ktables:codec \
                     {SUPPORTED_VERSIONS}",
                    quote(export)
                )),
                None => {}
            }
        }
        if !self.interfaces.iter().any(|&interface| interface != Interface::Plugin)
            && self.refusals.is_empty()
        {
            self.refusals.push(format!(
                "it exports no codec: none of value-codec, key-codec, group-scheme (plain or -batch) of {}; \
                 it has {} (in Rust, `ktables_guest::export!(…)` exports it)",
                PACKAGE.trim_end_matches('/'),
                list_names(&self.exports)
            ));
        }
    }
}

/// How many exports a message lists at most.
const MAX_LISTED: usize = 10;

/// Lists the names of exports for a message.
fn list_names(exports: &[String]) -> String {
    if exports.is_empty() {
        return "no exports".to_owned();
    }
    let names: Vec<String> = exports.iter().take(MAX_LISTED).map(|name| quote(name)).collect();
    match exports.len().saturating_sub(MAX_LISTED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_refused(wat: &str, refusal: &str) {
        let inspection = inspect(&wat::parse_str(wat).unwrap());
        assert!(inspection.refusals.iter().any(|reason| reason.contains(refusal)), "{inspection:?}");
    }

    #[test]
    fn unsupported_imports_and_exports_are_refused_by_name() {
        check_refused("(module)", "ktables codec build");
        check_refused("(component)", "exports no codec");
        check_refused(
            r#"(component (import "wasi:http/outgoing-handler@0.2.0" (instance)))"#,
            "wasi:http/outgoing-handler@0.2.0",
        );
        check_refused(
            r#"(component (import "wasi:cli/environment@0.3.0" (instance)))"#,
            "wasi:cli/environment@0.3.0",
        );
        check_refused(
            r#"(component (import "ktables:codec/logging@0.2.0" (instance)))"#,
            "ktables:codec 0.1.x",
        );
        check_refused(r#"(component (import "other:thing/api@1.0.0" (instance)))"#, "other:thing/api@1.0.0");
        check_refused(
            r#"(component (instance $i) (export "ktables:codec/value-codec@2.0.0" (instance $i)))"#,
            "ktables:codec/value-codec@2.0.0",
        );
    }

    #[test]
    fn a_component_with_many_wrong_imports_is_refused_for_some_of_them() {
        let imports: String =
            (0..500).map(|number| format!("(import \"a:b/c{number}@1.0.0\" (instance))")).collect();
        let inspection = inspect(&wat::parse_str(format!("(component {imports})")).unwrap());
        assert_eq!(inspection.refusals.len(), MAX_REFUSALS + 1);
        assert_eq!(inspection.refusals.last().unwrap(), "and for 480 more reasons");
    }

    #[test]
    fn an_asynchronous_export_is_refused_with_advice() {
        let wat = r#"(component
            (core module $m
                (func (export "f") (result i32) (i32.const 0))
                (func (export "callback") (param i32 i32 i32) (result i32) (i32.const 0)))
            (core instance $i (instantiate $m))
            (func $f async (canon lift (core func $i "f") async (callback (core func $i "callback"))))
            (export "f" (func $f)))"#;
        check_refused(wat, "synchronous bindings");
    }

    proptest::proptest! {
        #[test]
        fn damaged_components_never_panic(at: proptest::sample::Index, byte: u8, cut: proptest::sample::Index) {
            let wat = r#"(component
                (import "ktables:codec/logging@0.1.0" (instance))
                (core module $m (func (export "f") (result i32) (i32.const 0)))
                (core instance $i (instantiate $m))
                (func $f (result u32) (canon lift (core func $i "f")))
                (export "f" (func $f)))"#;
            let mut bytes = wat::parse_str(wat).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = inspect(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            let _ = inspect(&bytes);
        }
    }

    #[test]
    fn other_files_are_refused_without_a_panic() {
        for bytes in [&b""[..], b"hello", b"\0asm", b"\0asm\x0d\0\x01\0\xff\xff"] {
            assert!(!inspect(bytes).refusals.is_empty());
        }
    }

    #[test]
    fn a_codec_of_a_supported_version_is_accepted() {
        let wat = r#"(component
            (import "ktables:codec/logging@0.1.7" (instance))
            (instance $i)
            (export "ktables:codec/value-codec@0.1.3" (instance $i))
            (export "exports" (instance $i)))"#;
        let inspection = inspect(&wat::parse_str(wat).unwrap());
        assert_eq!(inspection.refusals, Vec::<String>::new());
        assert_eq!(inspection.interfaces, [Interface::ValueCodec]);
    }
}
