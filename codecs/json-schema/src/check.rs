//! Checks JSON against a schema.

use std::error::Error;

use jsonschema::{Draft, PatternOptions, Retrieve, Uri, ValidationError, Validator};
use ktables_guest::CodecError;
use ktables_guest::schemas::ResolvedReference;
use schema_framing::shorten;
use serde_json::Value;

/// How many errors of a value are reported, and how much of each.
const MAX_ERRORS: usize = 5;
const MAX_ERROR_CHARS: usize = 300;

/// The address of a schema without `$id`, against which its references are resolved.
const BASE: &str = "registry:///";

/// How far a pattern may backtrack in a text. Beyond that, the value is rejected.
const MAX_BACKTRACKS: usize = 100_000;

/// A compiled schema.
#[derive(Debug)]
pub(crate) struct Checker {
    validator: Validator,
    /// Whether its values are strings.
    pub(crate) is_text: bool,
}

impl Checker {
    /// Compiles a schema and those that it refers to.
    pub(crate) fn compile(
        text: &str,
        references: &[ResolvedReference],
        formats: bool,
    ) -> Result<Self, String> {
        let schema: Value =
            serde_json::from_str(text).map_err(|error| format!("it is not valid JSON: {error}"))?;
        let parse = |reference: &ResolvedReference| {
            let name = &reference.name;
            let parsed = serde_json::from_str(&reference.text);
            parsed
                .map(|schema| (name.clone(), schema))
                .map_err(|error| format!("{} is not valid JSON: {error}", shorten(name)))
        };
        let references: Result<Vec<_>, _> = references.iter().map(parse).collect();
        let mut options = jsonschema::options()
            .should_validate_formats(formats)
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(MAX_BACKTRACKS))
            .without_content_encoding_support("base64")
            .without_content_media_type_support("application/json")
            .with_base_uri(BASE)
            .with_retriever(References(references?));
        if matches!(schema.get("$schema").and_then(Value::as_str).map(draft_of), None | Some(Draft::Unknown))
        {
            options = options.with_draft(Draft::Draft7);
        }
        let validator = options.build(&schema).map_err(|error| describe(&error))?;
        Ok(Self { validator, is_text: schema["type"] == "string" })
    }

    /// Checks JSON.
    pub(crate) fn check(&self, json: &str) -> Result<(), CodecError> {
        let value: Value = serde_json::from_str(json)
            .map_err(|error| CodecError::Malformed(format!("it is not valid JSON: {error}")))?;
        if self.validator.is_valid(&value) {
            return Ok(());
        }
        let mut errors = self.validator.iter_errors(&value);
        let mut texts: Vec<String> = errors.by_ref().take(MAX_ERRORS).map(|error| describe(&error)).collect();
        if errors.next().is_some() {
            texts.push("and more".to_owned());
        }
        Err(CodecError::Invalid(texts.join("; ")))
    }
}

/// Returns the draft that a schema names in `$schema`.
fn draft_of(name: &str) -> Draft {
    Draft::default().detect(&serde_json::json!({ "$schema": name }))
}

/// Returns what is wrong, where in the value, and which keyword of the schema says so.
fn describe(error: &ValidationError<'_>) -> String {
    let path = error.instance_path().as_str();
    let place = if path.is_empty() { String::new() } else { format!("{}: ", shorten(path)) };
    let what = match error.instance().as_ref() {
        // Their text could be that of the whole value.
        Value::Array(_) | Value::Object(_) | Value::String(_) => error.masked().to_string(),
        Value::Null | Value::Bool(_) | Value::Number(_) => error.to_string(),
    };
    let what: String = what.chars().take(MAX_ERROR_CHARS).collect();
    format!("{place}{what} ({})", error.kind().keyword())
}

/// The schemas to which a schema refers, by the names that the registry has for them.
struct References(Vec<(String, Value)>);

impl Retrieve for References {
    /// Finds the schema that an address means: its name is the address or the end of it, and the longest such name wins. A
    /// relative reference has become an address: that of the schema, or [`BASE`], with the name behind it.
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let uri = uri.as_str();
        let ends_with = |name: &str| {
            let name = name.trim_start_matches("../").trim_start_matches("./");
            let before = uri.strip_suffix(name).filter(|_| !name.is_empty());
            before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
        };
        let found = self.0.iter().filter(|(name, _)| ends_with(name)).max_by_key(|(name, _)| name.len());
        found.map(|(_, schema)| schema.clone()).ok_or_else(|| {
            let uri = uri.strip_prefix(BASE).unwrap_or(uri);
            format!("it refers to {}, which is not among its references in the registry", shorten(uri)).into()
        })
    }
}
