//! Files with an edition, for a parser that does not know editions.

use std::ops::Range;

/// Returns the text of a file with `syntax = "proto3"` in place of its edition; `None` if it has no edition.
pub(crate) fn without_edition(text: &str) -> Result<Option<String>, String> {
    let Some((statement, edition)) = find_edition(text) else { return Ok(None) };
    match edition {
        "2023" => {
            let (before, after) = (&text[..statement.start], &text[statement.end..]);
            Ok(Some(format!("{before}syntax = \"proto3\"{after}")))
        }
        other => Err(format!("edition {other:?} is not known: use 2023")),
    }
}

/// Finds `edition = "…"` at the beginning of a file, behind comments.
fn find_edition(text: &str) -> Option<(Range<usize>, &str)> {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if rest.starts_with("//") {
            rest = rest.split_once('\n')?.1;
        } else if rest.starts_with("/*") {
            rest = rest.split_once("*/")?.1;
        } else {
            break;
        }
    }
    let start = text.len() - rest.len();
    let value = rest.strip_prefix("edition")?.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let (edition, after) = value[1..].split_once(quote)?;
    Some((start..text.len() - after.len(), edition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edition_is_found_behind_comments() {
        for (text, expected) in [
            ("edition = \"2023\";", Some("syntax = \"proto3\";")),
            (
                "// a\n/* edition = '1' */ edition='2023' ;x",
                Some("// a\n/* edition = '1' */ syntax = \"proto3\" ;x"),
            ),
            ("syntax = \"proto2\"; // edition = \"2023\"", None),
            ("message edition {}", None),
            ("// edition", None),
            ("/* edition", None),
            ("edition", None),
            ("edition = ", None),
            ("", None),
        ] {
            assert_eq!(without_edition(text).unwrap().as_deref(), expected, "{text}");
        }
        assert!(without_edition("edition = \"2050\";").unwrap_err().contains("2050"));
    }
}
