//! Keys in paths. A path that a proxy or a client may rewrite names no key.

use percent_encoding::percent_decode_str;

use crate::serve::problem::Problem;

/// How many parts of a path come before the key: `/v1/tables/TABLE/entries/`, with the empty one before the first slash.
const PARTS_BEFORE_KEY: usize = 5;

/// Returns the key that a path ends with. Fails if the path may mean another one to a proxy, or to a client that
/// normalizes addresses.
pub(super) fn key_of_path(path: &str) -> Result<String, Problem> {
    let raw = path.splitn(PARTS_BEFORE_KEY + 1, '/').nth(PARTS_BEFORE_KEY).unwrap_or_default();
    let ambiguous = || {
        Problem::bad_request(
            "proxies and clients rewrite such a path: name the key in a parameter instead, with …/entry?key=KEY in \
             percent encoding",
        )
    };
    let key = percent_decode_str(raw).decode_utf8().map_err(|_| ambiguous())?;
    if key.is_empty() || key == "." || key == ".." || key.contains(['/', '\\', '\0']) {
        return Err(ambiguous());
    }
    Ok(key.into_owned())
}

/// Whether a path is one that nobody rewrites on the way: it has no empty parts and no parts of dots, and is UTF-8 in
/// percent encoding, without a slash or a NUL in it.
pub(super) fn is_plain(path: &str) -> bool {
    let is_plain_part = |part: &str| match percent_decode_str(part).decode_utf8() {
        Ok(part) => !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\\', '\0']),
        Err(_) => false,
    };
    path == "/" || path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_plain_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_survives_normalization_is_accepted() {
        for (path, key) in [
            ("/v1/tables/t/entries/a", "a"),
            ("/v1/tables/entries/entries/a", "a"),
            ("/v1/tables/t/entries/a%20b", "a b"),
            ("/v1/tables/t/entries/a+b", "a+b"),
            ("/v1/tables/t/entries/%2e%2e%2e", "..."),
            ("/v1/tables/t/entries/%E2%80%AE", "\u{202e}"),
        ] {
            assert_eq!(key_of_path(path).unwrap(), key);
        }
    }

    #[test]
    fn a_key_that_may_be_rewritten_is_refused() {
        for key in [
            "", ".", "..", "%2e", "%2E%2e", "/", "a//b", "a/b", "a%2Fb", "%2f", "%5c", "%00", "%ff", "a/../b",
        ] {
            assert!(key_of_path(&format!("/v1/tables/t/entries/{key}")).is_err(), "{key}");
        }
    }

    #[test]
    fn a_plain_path_has_no_empty_parts_and_no_dots() {
        for path in ["/", "/v1/tables", "/v1/tables/a.b/entry", "/v1/tables/%20"] {
            assert!(is_plain(path), "{path}");
        }
        for path in [
            "/a%2fb",
            "/a%5C",
            "/%00",
            "",
            "//",
            "/v1/",
            "/v1//tables",
            "/v1/./a",
            "/v1/../a",
            "/v1/%2e%2E/a",
            "/%ff",
            "v1",
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }
}
