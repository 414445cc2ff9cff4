//! Environment variables in a configuration.

/// Why the environment variables in a value cannot be replaced.
pub(super) enum SubstitutionError {
    /// A variable is not set.
    Missing(String),
    /// `${` is not closed, or names no variable.
    Invalid(String),
}

impl SubstitutionError {
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Missing(reason) | Self::Invalid(reason) => reason,
        }
    }
}

/// Replaces environment variables in all strings of a value. `path` names the value in errors.
pub(super) fn substitute(
    value: &mut toml::Value,
    path: &str,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<(), SubstitutionError> {
    match value {
        toml::Value::String(text) => {
            *text = substitute_text(text, path, variable)?;
            Ok(())
        }
        toml::Value::Array(values) => {
            values.iter_mut().try_for_each(|value| substitute(value, path, variable))
        }
        toml::Value::Table(table) => table
            .iter_mut()
            .try_for_each(|(key, value)| substitute(value, &format!("{path}.{key}"), variable)),
        _ => Ok(()),
    }
}

/// Replaces `${NAME}` by the environment variable, and `$${` by `${`.
fn substitute_text(
    text: &str,
    path: &str,
    variable: &impl Fn(&str) -> Option<String>,
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
        if name.is_empty() {
            return Err(SubstitutionError::Invalid(format!("{path}: `${{}}` names no environment variable")));
        }
        let value = variable(name).ok_or_else(|| {
            let reason = format!("{path}: the environment variable {name} is not set, or is not UTF-8");
            SubstitutionError::Missing(reason)
        })?;
        replaced.push_str(before);
        replaced.push_str(&value);
        rest = after;
    }
    replaced.push_str(rest);
    Ok(replaced)
}
