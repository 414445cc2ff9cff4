//! The names of types: Avro's rules allow letters, digits and `_`. Java's reflection also writes `$`, for nested classes.

use std::sync::{LazyLock, Once};

use apache_avro::validator::{
    SchemaNameValidator, SchemaNamespaceValidator, set_schema_name_validator, set_schema_namespace_validator,
};
use regex_lite::Regex;

/// The pattern of a part of a name.
const PART: &str = "[A-Za-z_$][A-Za-z0-9_$]*";

/// A name, behind a namespace or not.
static NAME: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = format!(r"^((?P<namespace>({PART}(\.{PART})*)?)\.)?(?P<name>{PART})$");
    // OK because the pattern is a constant.
    Regex::new(&pattern).expect("a pattern")
});

/// A namespace.
static NAMESPACE: LazyLock<Regex> = LazyLock::new(|| {
    // OK because the pattern is a constant.
    Regex::new(&format!(r"^({PART}(\.{PART})*)?$")).expect("a pattern")
});

/// Names with `$`.
struct NamesOfJava;

impl SchemaNameValidator for NamesOfJava {
    fn regex(&self) -> &'static Regex {
        &NAME
    }
}

impl SchemaNamespaceValidator for NamesOfJava {
    fn regex(&self) -> &'static Regex {
        &NAMESPACE
    }
}

/// Allows `$` in the names of types. To be called before a schema is parsed.
pub(crate) fn allow_names_of_java() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // OK to ignore: nothing else sets them.
        let _ = set_schema_name_validator(Box::new(NamesOfJava));
        let _ = set_schema_namespace_validator(Box::new(NamesOfJava));
    });
}
