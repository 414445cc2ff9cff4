//! The text format of Prometheus, which clients read that do not ask for OpenMetrics.

/// Converts metrics from OpenMetrics. In the older format, the names of counters end with `_total` in the lines that
/// describe them, too, and there is neither a unit nor an end.
pub(super) fn from_open_metrics(text: &str) -> String {
    let is_counter = |name: &str| text.contains(&format!("# TYPE {name} counter\n"));
    let mut converted = String::with_capacity(text.len() + 1024);
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (hash, what, name) = (words.next(), words.next(), words.next());
        match (hash, what, name) {
            (Some("#"), Some("UNIT" | "EOF"), _) => continue,
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name)) if is_counter(name) => {
                let rest = words.next().unwrap_or_default();
                converted.push_str(&format!("# {what} {name}_total {rest}"));
            }
            _ => converted.push_str(line),
        }
        converted.push('\n');
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_descriptions_of_counters_change() {
        let open = "# HELP a Some help.\n# TYPE a counter\na_total{x=\"# TYPE b counter\"} 1\n# HELP b Help.\n\
                    # TYPE b gauge\n# UNIT b bytes\nb 2.0\n# EOF\n";
        let expected = "# HELP a_total Some help.\n# TYPE a_total counter\na_total{x=\"# TYPE b counter\"} 1\n\
                        # HELP b Help.\n# TYPE b gauge\nb 2.0\n";
        assert_eq!(from_open_metrics(open), expected);
    }
}
