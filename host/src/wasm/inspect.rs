//! What a file holds, read without compiling or running it, and every reason to
//! refuse it.

use std::collections::BTreeSet;
use std::fmt;

use wasmparser::{CanonicalFunction, CanonicalOption, Encoding, Parser, Payload};

/// The WIT package this host knows.
const PACKAGE: &str = "ktables:codec/";

/// The versions of it.
pub const SUPPORTED_VERSIONS: &str = "0.1.x";

/// The largest component: three times one with a Python interpreter in it.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// The most functions: several times an interpreter's. Together with
/// [`MAX_FUNCTION_BYTES`] it bounds a compilation before it starts, because one
/// that runs cannot be stopped.
const MAX_FUNCTIONS: usize = 100_000;

/// The largest function: several times an interpreter's main loop.
const MAX_FUNCTION_BYTES: usize = 2 << 20;

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
    } else if let Err(error) = inspection.walk(bytes) {
        inspection.refusals.push(format!("it is not a valid component: {error}"));
    } else {
        inspection.judge();
    }
    inspection
}

impl Inspection {
    /// The versions of this host's package that the exports are of.
    #[must_use]
    pub fn versions(&self) -> BTreeSet<&str> {
        self.exports.iter().filter_map(|export| Some(of_package(export)?.1)).collect()
    }

    /// Collects imports and exports of the outermost component, and the bounds of
    /// everything in it.
    fn walk(&mut self, bytes: &[u8]) -> wasmparser::Result<()> {
        let (mut depth, mut functions, mut largest, mut asynchronous) = (0_usize, 0, 0, false);
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { encoding: Encoding::Component | Encoding::Module, .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(imports) if depth == 1 => {
                    for import in imports {
                        self.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 1 => {
                    for export in exports {
                        self.exports.push(export?.name.name.to_owned());
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    functions += 1;
                    largest = largest.max(body.range().len());
                }
                Payload::ComponentCanonicalSection(canonicals) => {
                    for canonical in canonicals {
                        if let CanonicalFunction::Lift { options, .. } = canonical? {
                            asynchronous |= options.contains(&CanonicalOption::Async);
                        }
                    }
                }
                _ => {}
            }
        }
        if functions > MAX_FUNCTIONS {
            self.refusals.push(format!("it has {functions} functions, at most {MAX_FUNCTIONS} are allowed"));
        }
        if largest > MAX_FUNCTION_BYTES {
            self.refusals.push(format!(
                "its largest function has {largest} bytes, at most {MAX_FUNCTION_BYTES} are allowed: \
                 build it with optimization"
            ));
        }
        if asynchronous {
            self.refusals
                .push("it exports asynchronous functions: build it with synchronous bindings".to_owned());
        }
        Ok(())
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
                    "it exports `{export}`, a version this host does not know: rebuild it against \
                     ktables:codec {SUPPORTED_VERSIONS}"
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
                if self.exports.is_empty() { "no exports".to_owned() } else { self.exports.join(", ") }
            ));
        }
    }
}

/// Why this import cannot be given, if so.
fn refuse_import(import: &str) -> Option<String> {
    match of_package(import) {
        Some(("logging" | "types", version)) if supported(version) => None,
        Some(("logging" | "types", _)) => Some(format!(
            "it imports `{import}`, a version this host does not know: rebuild it against ktables:codec \
             {SUPPORTED_VERSIONS}"
        )),
        _ if import.starts_with("wasi:") => Some(format!(
            "it imports `{import}`: codecs have no WASI here. Build for a target without it \
             (Rust: wasm32-unknown-unknown), or stub it with `ktables codec build --stub-wasi`"
        )),
        _ => Some(format!(
            "it imports `{import}`, which no codec gets: the only import there is is {PACKAGE}logging"
        )),
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
