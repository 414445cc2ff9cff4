//! The project that `codec new` creates: the SDK of a language, an example, and what the example must answer.

use crate::authors::wit;
use crate::wasm::CodecKind;

/// The longest name of a project.
const MAX_NAME: usize = 64;

/// The languages that have an SDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Language {
    Rust,
    Python,
    #[value(name = "ts", alias = "typescript")]
    TypeScript,
    C,
    Go,
}

/// A file: its path in the project, and its text, which may have placeholders.
type File = (&'static str, &'static str);

/// Returns files of an SDK. The second path is relative to the folder of all SDKs.
macro_rules! files {
    ($($path:literal = $source:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../guest-sdk/", $source)))),*]
    };
}

const RUST: &[File] = files! {
    "Cargo.toml" = "rust/template/Cargo.toml",
    "README.md" = "rust/template/README.md",
    "ktables-guest/Cargo.toml" = "rust/template/ktables-guest.toml",
    "ktables-guest/src/adapter.rs" = "rust/src/adapter.rs",
    "ktables-guest/src/bindings.rs" = "rust/src/bindings.rs",
    "ktables-guest/src/codec.rs" = "rust/src/codec.rs",
    "ktables-guest/src/export.rs" = "rust/src/export.rs",
    "ktables-guest/src/json.rs" = "rust/src/json.rs",
    "ktables-guest/src/lib.rs" = "rust/src/lib.rs",
    "ktables-guest/src/log.rs" = "rust/src/log.rs",
    "ktables-guest/src/schemas.rs" = "rust/src/schemas.rs",
    "ktables-json/Cargo.toml" = "rust/template/ktables-json.toml",
    "ktables-json/src/lib.rs" = "../json/src/lib.rs",
    "ktables-json/src/scan.rs" = "../json/src/scan.rs",
};

const PYTHON: &[File] = files! {
    "README.md" = "python/template/README.md",
    "ktables/__init__.py" = "python/ktables/__init__.py",
    "ktables/__main__.py" = "python/ktables/__main__.py",
    "ktables/exports.py" = "python/ktables/exports.py",
};

const TYPESCRIPT: &[File] = files! {
    "README.md" = "typescript/template/README.md",
    "package.json" = "typescript/template/package.json",
    "tsconfig.json" = "typescript/template/tsconfig.json",
    "ktables/build.mjs" = "typescript/build.mjs",
    "ktables/exports.ts" = "typescript/exports.ts",
    "ktables/ktables.ts" = "typescript/ktables.ts",
    "ktables/wit.d.ts" = "typescript/wit.d.ts",
};

const C: &[File] = files! {
    "README.md" = "c/template/README.md",
    "ktables.c" = "c/ktables.c",
    "ktables.h" = "c/ktables.h",
};

const GO: &[File] = files! {
    "README.md" = "go/template/README.md",
    "go.mod" = "go/template/go.mod",
    "ktables/go.mod" = "go/go.mod",
    "ktables/codec/codec.go" = "go/codec/codec.go",
    "ktables/group/group.go" = "go/group/group.go",
    "ktables/internal/abi/abi.go" = "go/internal/abi/abi.go",
    "ktables/internal/abi/log_native.go" = "go/internal/abi/log_native.go",
    "ktables/internal/abi/log_wasm.go" = "go/internal/abi/log_wasm.go",
    "ktables/internal/abi/packed.go" = "go/internal/abi/packed.go",
    "ktables/key/key.go" = "go/key/key.go",
    "ktables/plugin/plugin.go" = "go/plugin/plugin.go",
    "ktables/value/value.go" = "go/value/value.go",
};

impl Language {
    /// Returns the files that do not depend on the kind of codec.
    fn files(self) -> &'static [File] {
        match self {
            Self::Rust => RUST,
            Self::Python => PYTHON,
            Self::TypeScript => TYPESCRIPT,
            Self::C => C,
            Self::Go => GO,
        }
    }

    /// Returns the example of a kind of codec.
    fn example(self, kind: CodecKind) -> File {
        let files: &[File; 3] = match self {
            Self::Rust => files! {
                "src/lib.rs" = "rust/template/value.rs",
                "src/lib.rs" = "rust/template/key.rs",
                "src/lib.rs" = "rust/template/group.rs",
            },
            Self::Python => files! {
                "codec.py" = "python/template/value.py",
                "codec.py" = "python/template/key.py",
                "codec.py" = "python/template/group.py",
            },
            Self::TypeScript => files! {
                "codec.ts" = "typescript/template/value.ts",
                "codec.ts" = "typescript/template/key.ts",
                "codec.ts" = "typescript/template/group.ts",
            },
            Self::C => files! {
                "codec.c" = "c/template/value.c",
                "codec.c" = "c/template/key.c",
                "codec.c" = "c/template/group.c",
            },
            Self::Go => files! {
                "codec.go" = "go/template/value.go",
                "codec.go" = "go/template/key.go",
                "codec.go" = "go/template/group.go",
            },
        };
        of_kind(files, kind)
    }
}

/// Returns the item of a kind of codec: those of values, of keys and of groups.
fn of_kind(items: &[File; 3], kind: CodecKind) -> File {
    match kind {
        CodecKind::Value => items[0],
        CodecKind::Key => items[1],
        CodecKind::Group => items[2],
    }
}

/// Returns the files of a project with this name: their paths and their texts.
///
/// # Errors
///
/// If this is no name for a project.
pub(crate) fn project_files(
    language: Language,
    kind: CodecKind,
    name: &str,
) -> Result<Vec<(String, String)>, String> {
    check_name(name)?;
    let vectors: &[File; 3] = files! {
        "vectors.ndjson" = "vectors/value.ndjson",
        "vectors.ndjson" = "vectors/key.ndjson",
        "vectors.ndjson" = "vectors/group.ndjson",
    };
    let own = [language.example(kind), of_kind(vectors, kind)];
    let fill = |text: &str| {
        text.replace("{{name}}", name)
            .replace("{{module}}", &name.replace('-', "_"))
            .replace("{{version}}", env!("CARGO_PKG_VERSION"))
    };
    let files = language.files().iter().chain(&own);
    let mut files: Vec<_> = files.map(|(path, text)| ((*path).to_owned(), fill(text))).collect();
    if language == Language::Rust {
        let wit = wit::files().map(|(file, text)| (format!("ktables-guest/wit/0.1/{file}"), text.to_owned()));
        files.extend(wit);
    }
    Ok(files)
}

/// Checks that a name can be the name of a package in every language.
fn check_name(name: &str) -> Result<(), String> {
    // They are the names of packages or words of a language.
    const TAKEN: [&str; 16] = [
        "ktables",
        "ktables-guest",
        "ktables-json",
        "codec",
        "core",
        "std",
        "alloc",
        "test",
        "proc_macro",
        "main",
        "fn",
        "mod",
        "crate",
        "self",
        "type",
        "internal",
    ];
    let is_valid = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
        && name.len() <= MAX_NAME;
    if TAKEN.contains(&name) {
        return Err(format!(
            "{name:?} cannot be the name of a codec: it has another meaning in some language"
        ));
    }
    if is_valid {
        return Ok(());
    }
    Err(format!(
        "{name:?} cannot be the name of a codec: use up to {MAX_NAME} lower-case letters, digits, `-` and `_`, \
         with a letter first"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_of_the_sdks_are_in_a_project() {
        let sdks = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-sdk");
        for (language, folder, expected) in [
            (Language::Rust, "rust/src", "ktables-guest/src"),
            (Language::Python, "python/ktables", "ktables"),
            (Language::TypeScript, "typescript", "ktables"),
            (Language::C, "c", ""),
            (Language::Go, "go/internal/abi", "ktables/internal/abi"),
            (Language::Go, "go/value", "ktables/value"),
        ] {
            let files = project_files(language, CodecKind::Value, "demo").unwrap();
            let entries = std::fs::read_dir(sdks.join(folder)).unwrap().map(Result::unwrap);
            for entry in entries.filter(|entry| entry.path().is_file()) {
                let name = entry.file_name().into_string().unwrap();
                let path = std::path::Path::new(expected).join(&name);
                assert!(files.iter().any(|(file, _)| *path == **file), "{language:?}: {path:?}");
            }
            let placeholders = ["{{name}}", "{{module}}", "{{version}}"];
            let is_filled =
                |text: &String| placeholders.iter().all(|placeholder| !text.contains(placeholder));
            assert!(files.iter().all(|(_, text)| is_filled(text)), "{language:?}");
        }
    }

    #[test]
    fn the_rust_sdk_has_the_dependencies_of_the_workspace() {
        let workspace = include_str!("../../../Cargo.toml");
        let own = include_str!("../../../guest-sdk/rust/template/ktables-guest.toml");
        let dependency = own.lines().find(|line| line.starts_with("wit-bindgen")).unwrap();
        assert!(workspace.lines().any(|line| line == dependency), "{dependency}");
    }

    #[test]
    fn names_that_a_language_does_not_accept_are_refused() {
        for name in ["", "ktables", "1a", "A", "a b", "a.b", "../a", "ä", &"a".repeat(65)] {
            assert!(project_files(Language::Go, CodecKind::Key, name).is_err(), "{name}");
        }
    }
}
