//! The parameters of a request's address.

use std::str::FromStr;
use std::time::Duration;

use axum::http::Uri;
use percent_encoding::percent_decode_str;

use crate::config::find_nearest;
use crate::escape::escape_name;
use crate::serve::problem::Problem;

/// The parameters of a request. Each of them is known, and given at most once.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses the parameters. `known` has the names that the endpoint understands.
    pub(super) fn parse(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if matches!(&*name, "token" | "access_token" | "authorization") {
                return Err(Problem::bad_request(
                    "a token in an address ends up in logs: send it in the header `Authorization: Bearer TOKEN`",
                ));
            }
            if !known.contains(&&*name) {
                let nearest = find_nearest(&name, known).map(|name| format!("; did you mean `{name}`?"));
                return Err(Problem::bad_request(format!(
                    "there is no parameter `{}`{} (known: {})",
                    escape_name(&name),
                    nearest.unwrap_or_default(),
                    known.join(", ")
                )));
            }
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(Problem::bad_request(format!("the parameter `{name}` is given twice")));
            }
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// Returns the parameters without one of them.
    pub(super) fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(known, _)| known != name).cloned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// Returns a parameter that is `true` or `false`; `default` if it is not given.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Problem> {
        match self.get(name) {
            None => Ok(default),
            // `?fresh` is short for `?fresh=true`.
            Some("true" | "") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(invalid(name, "true or false")),
        }
    }

    /// Returns a duration, which is at most `max`.
    pub(super) fn duration(&self, name: &str, max: Duration) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let parsed = humantime::parse_duration(text);
        parsed
            .map(|duration| Some(duration.min(max)))
            .map_err(|_| invalid(name, "a duration such as 500ms or 30s"))
    }

    /// Returns a number.
    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| invalid(name, "a number"))
    }
}

/// Returns the problem of a parameter that cannot be parsed.
pub(super) fn invalid(name: &str, expected: &str) -> Problem {
    Problem::bad_request(format!("the parameter `{name}` must be {expected}"))
}

/// Decodes a name or a value.
fn decode(text: &str) -> Result<String, Problem> {
    let is_hex =
        |digits: Option<&[u8]>| digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    let mut signs = text.match_indices('%');
    if signs.any(|(at, _)| !is_hex(text.as_bytes().get(at + 1..at + 3))) {
        return Err(Problem::bad_request(
            "a `%` in a parameter has no two hexadecimal digits: write it as %25",
        ));
    }
    let text = text.replace('+', " ");
    percent_decode_str(&text)
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| Problem::bad_request("a parameter is not UTF-8 in percent encoding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Query, Problem> {
        Query::parse(&format!("/x?{text}").parse().unwrap(), &["key", "limit", "fresh", "wait"])
    }

    #[test]
    fn parameters_are_decoded() {
        let query = parse("key=a%2Fb+c%2B%00%E2%80%AE&limit=5&&fresh&wait=2s").unwrap();
        assert_eq!(query.get("key"), Some("a/b c+\0\u{202e}"));
        assert_eq!(query.number::<usize>("limit").unwrap(), Some(5));
        assert!(query.flag("fresh", false).unwrap());
        assert_eq!(query.duration("wait", Duration::from_secs(1)).unwrap(), Some(Duration::from_secs(1)));
        assert_eq!(parse("key=").unwrap().get("key"), Some(""));
        assert_eq!(parse("").unwrap().get("key"), None);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (text, expected) in [
            ("limti=1", "did you mean `limit`?"),
            ("key=1&key=2", "given twice"),
            ("key=%ff", "not UTF-8"),
            ("key=%zz", "write it as %25"),
            ("key=100%", "write it as %25"),
            ("token=x", "Authorization"),
            ("access_token=x", "Authorization"),
        ] {
            let problem = parse(text).unwrap_err().to_json();
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(expected), "{detail}");
        }
        let query = parse("limit=x&fresh=1&wait=5").unwrap();
        assert!(query.number::<usize>("limit").is_err());
        assert!(query.flag("fresh", false).is_err());
        assert!(query.duration("wait", Duration::MAX).is_err());
    }
}
