//! What a file holds, read without compiling or running it, and every reason to
//! refuse it.

use std::collections::BTreeSet;
use std::fmt;

use wasmparser::Parser;

use crate::wasm::scan::{MAX_BYTES, Needs, quoted, sections};

/// The WIT package this host knows.
const PACKAGE: &str = "ktables:codec/";

/// The versions of it.
pub const SUPPORTED_VERSIONS: &str = "0.1.x";

/// An interface of the package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the interface of its name")]
pub enum Interface {
    ValueCodec,
    ValueCodecBatch,
    KeyCodec,
    KeyCodecBatch,
    GroupScheme,
    GroupSchemeBatch,
    Plugin,
}

impl Interface {
    const ALL: [Self; 7] = [
        Self::ValueCodec,
        Self::ValueCodecBatch,
        Self::KeyCodec,
        Self::KeyCodecBatch,
        Self::GroupScheme,
        Self::GroupSchemeBatch,
        Self::Plugin,
    ];

    /// Its name in WIT.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ValueCodec => "value-codec",
            Self::ValueCodecBatch => "value-codec-batch",
            Self::KeyCodec => "key-codec",
            Self::KeyCodecBatch => "key-codec-batch",
            Self::GroupScheme => "group-scheme",
            Self::GroupSchemeBatch => "group-scheme-batch",
            Self::Plugin => "plugin",
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a component imports and exports, and why it is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The names of its imports.
    pub imports: Vec<String>,
    /// The names of its exports.
    pub exports: Vec<String>,
    /// The interfaces of this host's package among the exports.
    pub interfaces: Vec<Interface>,
    /// Every reason to refuse it, with what to do; empty if it is accepted.
    pub refusals: Vec<String>,
    /// What one instance of it needs.
    pub(super) needs: Needs,
}

/// Looks at the bytes of a component.
#[must_use]
pub fn inspect(bytes: &[u8]) -> Inspection {
    let mut inspection = Inspection::default();
    if bytes.len() > MAX_BYTES {
        inspection.refusals.push(format!("it has {} bytes, at most {MAX_BYTES} are allowed", bytes.len()));
    } else if Parser::is_core_wasm(bytes) {
        inspection.refusals.push(
            "it is a core module, not a component: make one with `ktables codec build CORE.wasm -o FILE.wasm`"
                .to_owned(),
        );
    } else if !Parser::is_component(bytes) {
        inspection.refusals.push("it is not a WebAssembly component".to_owned());
    } else {
        inspection.read_sections(bytes);
    }
    inspection
}

impl Inspection {
    /// The versions of this host's package that the exports are of.
    #[must_use]
    pub fn versions(&self) -> BTreeSet<&str> {
        self.exports.iter().filter_map(|export| Some(of_package(export)?.1)).collect()
    }

    /// Collects imports and exports of the outermost component, and checks its limits.
    fn read_sections(&mut self, bytes: &[u8]) {
        match sections(bytes) {
            Err(refusal) => self.refusals = refusal.reasons(),
            Ok(found) => {
                (self.imports, self.exports, self.needs) = (found.imports, found.exports, found.needs);
                if found.is_async {
                    self.refusals.push(
                        "it exports asynchronous functions: build it with synchronous bindings".to_owned(),
                    );
                }
                self.judge();
            }
        }
    }

    fn judge(&mut self) {
        for import in &self.imports {
            self.refusals.extend(refuse_import(import));
        }
        for export in &self.exports {
            let Some((name, version)) = of_package(export) else { continue };
            let known = Interface::ALL.into_iter().find(|interface| interface.name() == name);
            match known {
                Some(interface) if supported(version) => self.interfaces.push(interface),
                Some(_) => self.refusals.push(format!(
                    "it exports {}, a version this host does not know: rebuild it against ktables:codec \
                     {SUPPORTED_VERSIONS}",
                    quoted(export)
                )),
                None => {}
            }
        }
        if !self.interfaces.iter().any(|&interface| interface != Interface::Plugin)
            && self.refusals.is_empty()
        {
            self.refusals.push(format!(
                "it exports no codec: none of value-codec, key-codec, group-scheme (plain or -batch) of {}; \
                 it has {} (in Rust, is there a line `ktables_guest::export!(…)`?)",
                PACKAGE.trim_end_matches('/'),
                listed(&self.exports)
            ));
        }
    }
}

/// Why this import cannot be given, if so.
fn refuse_import(import: &str) -> Option<String> {
    match of_package(import) {
        Some(("logging" | "types", version)) if supported(version) => None,
        Some(("logging" | "types", _)) => Some(format!(
            "it imports {}, a version this host does not know: rebuild it against ktables:codec \
             {SUPPORTED_VERSIONS}",
            quoted(import)
        )),
        _ if import.starts_with("wasi:") => Some(format!(
            "it imports {}: codecs have no WASI here. Build for a target without it (Rust: \
             wasm32-unknown-unknown), or stub it with `ktables codec build --stub-wasi`",
            quoted(import)
        )),
        _ => Some(format!(
            "it imports {}, which no codec gets: the only import there is is {PACKAGE}logging",
            quoted(import)
        )),
    }
}

/// The most exports that a message lists.
const LISTED: usize = 10;

fn listed(exports: &[String]) -> String {
    if exports.is_empty() {
        return "no exports".to_owned();
    }
    let names: Vec<String> = exports.iter().take(LISTED).map(|name| quoted(name)).collect();
    match exports.len().saturating_sub(LISTED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// Name and version of an interface of this host's package.
fn of_package(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE)?.split_once('@')
}

fn supported(version: &str) -> bool {
    version.strip_prefix("0.1.").is_some_and(|patch| patch.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wat: &str, refusal: &str) {
        let inspection = inspect(&wat::parse_str(wat).unwrap());
        assert!(inspection.refusals.iter().any(|reason| reason.contains(refusal)), "{inspection:?}");
    }

    #[test]
    fn what_cannot_run_is_refused_by_name() {
        check("(module)", "ktables codec build");
        check("(component)", "exports no codec");
        check(
            r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#,
            "wasi:cli/environment@0.2.0",
        );
        check(r#"(component (import "ktables:codec/logging@0.2.0" (instance)))"#, "ktables:codec 0.1.x");
        check(r#"(component (import "other:thing/api@1.0.0" (instance)))"#, "other:thing/api@1.0.0");
        check(
            r#"(component (instance $i) (export "ktables:codec/value-codec@2.0.0" (instance $i)))"#,
            "ktables:codec/value-codec@2.0.0",
        );
    }

    #[test]
    fn an_asynchronous_export_is_refused_in_our_words() {
        let wat = r#"(component
            (core module $m
                (func (export "f") (result i32) (i32.const 0))
                (func (export "callback") (param i32 i32 i32) (result i32) (i32.const 0)))
            (core instance $i (instantiate $m))
            (func $f async (canon lift (core func $i "f") async (callback (core func $i "callback"))))
            (export "f" (func $f)))"#;
        check(wat, "synchronous bindings");
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
    fn what_is_no_component_is_refused_without_panic() {
        for bytes in [&b""[..], b"hello", b"\0asm", b"\0asm\x0d\0\x01\0\xff\xff"] {
            assert!(!inspect(bytes).refusals.is_empty());
        }
    }

    #[test]
    fn a_codec_of_a_known_version_is_accepted() {
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
