//! Environment variables and files in the texts of a configuration.

use std::path::Path;

use crate::config::ConfigError;
use crate::file::{FileError, read_text};

/// The beginning of a name that is not that of a variable, but of a file.
const FILE_PREFIX: &str = "file:";

/// The largest file that is read, in bytes: a secret or a certificate.
const MAX_FILE_BYTES: usize = 64 << 10;

/// Why the texts in a value cannot be completed.
pub(super) enum SubstitutionError {
    /// A variable is not set, or a file cannot be read.
    Missing(String),
    /// `${` is not closed, or names nothing.
    Invalid(String),
}

impl SubstitutionError {
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Missing(reason) | Self::Invalid(reason) => reason,
        }
    }
}

/// Returns what `${name}` stands for: with `file:`, the content of a file without the line break at its end, otherwise
/// an environment variable. Relative paths are relative to `folder`.
pub(super) fn look_up(name: &str, folder: &Path) -> Result<String, String> {
    let Some(path) = name.strip_prefix(FILE_PREFIX) else {
        let missing = |_| format!("the environment variable {name} is not set, or is not UTF-8");
        return std::env::var(name).map_err(missing);
    };
    let path = folder.join(path);
    let text = read_text(&path, MAX_FILE_BYTES).map_err(FileError::of::<ConfigError>("read", &path));
    let text = text.map_err(|error| error.to_string())?;
    let end = text.strip_suffix('\n').unwrap_or(&text);
    Ok(end.strip_suffix('\r').unwrap_or(end).to_owned())
}

/// Completes all texts of a value. `path` names the value in errors.
pub(super) fn substitute(
    value: &mut toml::Value,
    path: &str,
    look_up: &impl Fn(&str) -> Result<String, String>,
) -> Result<(), SubstitutionError> {
    match value {
        toml::Value::String(text) => {
            *text = substitute_text(text, path, look_up)?;
            Ok(())
        }
        toml::Value::Array(values) => {
            values.iter_mut().try_for_each(|value| substitute(value, path, look_up))
        }
        toml::Value::Table(table) => {
            table.iter_mut().try_for_each(|(key, value)| substitute(value, &format!("{path}.{key}"), look_up))
        }
        _ => Ok(()),
    }
}

/// Whether a text contains something that is substituted.
pub(super) fn is_substituted(text: &str) -> bool {
    // What it stands for does not matter.
    substitute_text(text, "", &|_| Err(String::new())).is_err()
}

/// Replaces `${NAME}` by what it stands for, and `$${` by `${`.
fn substitute_text(
    text: &str,
    path: &str,
    look_up: &impl Fn(&str) -> Result<String, String>,
) -> Result<String, SubstitutionError> {
    let (mut replaced, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            replaced.extend([literal, "${"]);
            rest = after;
            continue;
        }
        let (name, after) = after.split_once('}').ok_or_else(|| {
            SubstitutionError::Invalid(format!("{path}: `${{` without `}}`: write `$${{` for a plain `${{`"))
        })?;
        if name.is_empty() || name == FILE_PREFIX {
            return Err(SubstitutionError::Invalid(format!(
                "{path}: `${{{name}}}` names no environment variable and no file"
            )));
        }
        let value =
            look_up(name).map_err(|reason| SubstitutionError::Missing(format!("{path}: {reason}")))?;
        replaced.push_str(before);
        replaced.push_str(&value);
        rest = after;
    }
    replaced.push_str(rest);
    Ok(replaced)
}
