//! Environment variables in a configuration.

/// Why the environment variables in a value cannot be replaced.
pub(super) enum SubstitutionError {
    /// A variable is not set.
    Missing(String),
    /// The value has no equivalent in JSON, or `${` is not closed.
    Invalid(String),
}

/// Replaces environment variables in all strings of a value. `path` names the value in errors.
pub(super) fn substitute(
    value: &mut toml::Value,
    path: &str,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<(), SubstitutionError> {
    let invalid = |reason: &str| Err(SubstitutionError::Invalid(format!("{path}: {reason}")));
    match value {
        toml::Value::String(text) => {
            *text = substitute_text(text, path, variable)?;
            Ok(())
        }
        toml::Value::Datetime(_) => invalid("a date is not a JSON value: write it as a string"),
        toml::Value::Float(number) if !number.is_finite() => invalid(&format!("{number} is not JSON")),
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
        let value = variable(name).ok_or_else(|| {
            SubstitutionError::Missing(format!("{path}: the environment variable {name} is not set"))
        })?;
        replaced.push_str(before);
        replaced.push_str(&value);
        rest = after;
    }
    replaced.push_str(rest);
    Ok(replaced)
}
