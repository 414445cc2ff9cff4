//! Errors of the configuration file, in words, without its values.

/// Describes a syntax error by its line, column and message. It does not quote the line, as the parser does,
/// because the line may hold a secret.
pub(super) fn describe_syntax_error(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    format!("line {line}, column {column}: {}", error.message())
}

/// Describes an error in a key or a value. For an unknown key, it adds the most similar known one. It does
/// not quote the value, as serde does, because the value may be a secret.
pub(super) fn describe_value_error(error: &toml::de::Error) -> String {
    let text = redact_value(&error.to_string());
    let quoted: Vec<&str> = error.message().split('`').skip(1).step_by(2).collect();
    let nearest = match quoted.split_first() {
        Some((unknown, known)) if error.message().starts_with("unknown field") => {
            find_nearest(unknown, known)
        }
        _ => None,
    };
    match nearest {
        Some(name) => format!("{}; did you mean `{name}`?", text.trim_end()),
        None => text.trim_end().to_owned(),
    }
}

/// Removes the value that a message of serde quotes, for example from "invalid type: integer `1`, expected a
/// string".
fn redact_value(message: &str) -> String {
    for problem in ["invalid type: ", "invalid value: ", "unknown variant "] {
        if let Some(start) = message.find(problem)
            && let Some(end) = message.rfind(", expected ")
        {
            let (before, found) = message[..end].split_at(start + problem.len());
            let kind = found.split(['"', '`']).next().unwrap_or_default();
            return format!("{}{}", format!("{before}{kind}").trim_end_matches([' ', ':']), &message[end..]);
        }
    }
    message.to_owned()
}

/// Returns the known name that is most similar to this one, or `None` if none is similar.
pub(crate) fn find_nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let similarity = |known: &&str| strsim::jaro_winkler(name, known);
    let best = known.iter().copied().max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(&best) > 0.7).then_some(best)
}
