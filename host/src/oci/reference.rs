//! References to artifacts: in a registry, or in a folder with an OCI image layout.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::escape::one_line_within;
use crate::oci::{Digest, OciError};

/// The prefix of a reference to a registry.
const REGISTRY_SCHEME: &str = "oci://";

/// The prefix of a reference to a folder.
const LAYOUT_SCHEME: &str = "oci-layout:";

/// The limits of the distribution specification, in bytes.
const MAX_TAG: usize = 128;
const MAX_REPOSITORY: usize = 255;

/// How much of a malformed reference an error repeats, in bytes.
const SHOWN: usize = 300;

/// Names a manifest: by a tag, which may move, by its digest, or by both. Then the digest decides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Reference {
    pub(crate) location: Location,
    pub(crate) tag: Option<String>,
    /// The digest of the manifest.
    pub(crate) digest: Option<Digest>,
}

/// Where manifests and blobs are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Location {
    /// In a repository of a registry.
    Registry(Repository),
    /// In a folder with an OCI image layout.
    Layout(PathBuf),
}

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Repository {
    /// The host, with the port if it has one.
    pub(crate) host: String,
    /// The path of the repository.
    pub(crate) name: String,
}

impl Reference {
    /// Whether a text is a reference, well formed or not, and not the name of a file.
    pub(crate) fn is_reference(text: &str) -> bool {
        text.starts_with(REGISTRY_SCHEME) || text.starts_with(LAYOUT_SCHEME)
    }

    /// Returns the reference without its digest.
    pub(crate) fn without_digest(&self) -> Self {
        Self { digest: None, ..self.clone() }
    }

    /// Returns the same location with this digest.
    pub(crate) fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

impl FromStr for Reference {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let bad = |reason: &str| {
            OciError::Usage(format!("cannot read the reference `{}`: {reason}", one_line_within(text, SHOWN)))
        };
        if let Some(rest) = text.strip_prefix(LAYOUT_SCHEME) {
            let (rest, digest) = split_digest(rest)?;
            let (folder, tag) = match rest.rsplit_once(':') {
                Some((folder, tag)) if is_tag(tag) => (folder, Some(tag.to_owned())),
                _ => (rest, None),
            };
            if folder.is_empty() {
                return Err(bad("it names no folder. Write `oci-layout:DIR:TAG`."));
            }
            return Ok(Self { location: Location::Layout(folder.into()), tag, digest });
        }
        let Some(rest) = text.strip_prefix(REGISTRY_SCHEME) else {
            return Err(bad("it has no scheme. Write `oci://HOST/REPO:TAG` or `oci-layout:DIR:TAG`."));
        };
        let Some((host, path)) = rest.split_once('/').filter(|(host, _)| is_host(host)) else {
            let path = if rest.contains('/') { rest } else { "REPO:TAG" };
            return Err(match rest.split_once('/') {
                Some((host, _)) if host.contains('@') => bad(
                    "it has a user name. Credentials come from the docker configuration, or from `auth_file`.",
                ),
                Some((host, _)) if host.is_empty() || !looks_like_segment(host) => {
                    bad("its registry is malformed. Write `oci://HOST[:PORT]/REPO:TAG`.")
                }
                _ => bad(&format!(
                    "it names no registry. Write `oci://HOST/{}`.",
                    one_line_within(path, SHOWN)
                )),
            });
        };
        let (path, digest) = split_digest(path)?;
        let (name, tag) = match path.rsplit_once(':') {
            Some((name, tag)) if is_tag(tag) => (name, Some(tag.to_owned())),
            Some((_, _)) => {
                return Err(bad("its tag is malformed: letters, digits, `_`, `.` and `-`, at most 128."));
            }
            None => (path, None),
        };
        if !is_repository(name) {
            let reason = "its repository is malformed: lower-case letters and digits, separated by `/`, `.`, `_` or `-`.";
            return Err(bad(reason));
        }
        let location =
            Location::Registry(Repository { host: host.to_ascii_lowercase(), name: name.to_owned() });
        Ok(Self { location, tag, digest })
    }
}

/// Splits the digest off the end of a reference.
fn split_digest(text: &str) -> Result<(&str, Option<Digest>), OciError> {
    match text.rsplit_once('@') {
        // A folder may have an `@` in its name.
        Some((_, digest)) if digest.contains('/') => Ok((text, None)),
        Some((rest, digest)) => Ok((rest, Some(digest.parse()?))),
        None => Ok((text, None)),
    }
}

/// Whether this is the host of a registry: it has a dot or a port, or is `localhost`.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
            return rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        }
        Some(_) => return false,
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_named = host.contains('.') || port.is_some() || host.eq_ignore_ascii_case("localhost");
    // The URL standard refuses more, for example names that end in a number and are no addresses.
    let is_url = || reqwest::Url::parse(&format!("https://{text}/")).is_ok();
    is_named && host.len() <= 253 && host.split('.').all(is_label) && port.is_none_or(is_port) && is_url()
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn looks_like_segment(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Whether this is a tag, by the rules of the distribution specification.
pub(crate) fn is_tag(text: &str) -> bool {
    let is_first = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.len() <= MAX_TAG
        && text.as_bytes().first().is_some_and(is_first)
        && text.bytes().all(|byte| is_first(&byte) || b".-".contains(&byte))
}

/// Whether this is the path of a repository, by the rules of the distribution specification.
pub(crate) fn is_repository(text: &str) -> bool {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'));
    let is_segment = |segment: &str| {
        // The separators are one `.`, one or two `_`, or any number of `-`.
        let mut rest = segment;
        loop {
            let end = rest.bytes().position(|byte| b"._-".contains(&byte)).unwrap_or(rest.len());
            let (word, tail) = rest.split_at(end);
            if !is_word(word) {
                return false;
            }
            if tail.is_empty() {
                return true;
            }
            let len = match tail.as_bytes() {
                [b'-', ..] => tail.bytes().take_while(|byte| *byte == b'-').count(),
                [b'_', b'_', ..] => 2,
                _ => 1,
            };
            rest = &tail[len..];
        }
    };
    text.len() <= MAX_REPOSITORY && text.split('/').all(is_segment)
}

impl Repository {
    /// Returns the host without the port.
    pub(crate) fn host_name(&self) -> &str {
        host_name(&self.host)
    }

    /// Whether the registry runs on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let name = self.host_name().trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// Returns a host without its port.
pub(crate) fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(repository) => write!(f, "{REGISTRY_SCHEME}{repository}"),
            Self::Layout(folder) => write!(f, "{LAYOUT_SCHEME}{}", folder.display()),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.location.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn error(text: &str) -> String {
        text.parse::<Reference>().unwrap_err().to_string()
    }

    #[test]
    fn references_name_a_registry_or_a_folder() {
        for text in [
            "oci://registry.example/codecs/service-record:1.4.0",
            &format!("oci://registry.example:5000/a__b/c---d/e.f:v_1@{DIGEST}"),
            &format!("oci://localhost/x@{DIGEST}"),
            "oci://127.0.0.1:5000/x:1",
            "oci://[::1]:5000/x:1",
            "oci://registry.example/x",
            "oci-layout:codecs",
            "oci-layout:/a/b.c:1.0.0",
            &format!("oci-layout:a@b/c:1@{DIGEST}"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_reference_without_a_registry_is_an_error_that_says_what_to_write() {
        let expected = "cannot read the reference `oci://codecs/x:1`: it names no registry. Write `oci://HOST/codecs/x:1`.";
        assert_eq!(error("oci://codecs/x:1"), expected);
    }

    #[test]
    fn malformed_references_are_refused() {
        for (text, reason) in [
            ("oci://", "names no registry"),
            ("oci:///x", "registry is malformed"),
            ("oci://a.b", "names no registry"),
            ("oci://a.b/", "repository is malformed"),
            ("oci://a.b/X", "repository is malformed"),
            ("oci://a.b/x//y", "repository is malformed"),
            ("oci://a.b/../y", "repository is malformed"),
            ("oci://a.b/x___y", "repository is malformed"),
            ("oci://a.b/x:", "tag is malformed"),
            ("oci://a.b/x:a b", "tag is malformed"),
            ("oci://user:secret@a.b/x:1", "has a user name"),
            ("oci://a.b:99999/x", "registry is malformed"),
            ("oci://a..b/x", "registry is malformed"),
            ("oci://256.1.1.1/x", "registry is malformed"),
            ("oci://registry.example.1/x", "registry is malformed"),
            ("oci://a.b/x@sha512:ab", "sha512 is not supported"),
            ("oci://a.b/x@sha256:ab", "malformed"),
            ("oci-layout:", "no folder"),
            ("x.wasm", "no scheme"),
        ] {
            let error = error(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(error(&format!("oci://a.b/{}", "x".repeat(300))).len() < 600);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed_again(
            host in "(localhost|[a-z0-9]{1,8}(\\.[a-z][a-z0-9]{0,7}){1,3})(:[1-9][0-9]{0,3})?",
            name in "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,6}){0,2}(/[a-z0-9]{1,6}){0,3}",
            tag in proptest::option::of("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}"),
            digest in proptest::option::of(proptest::array::uniform32(any::<u8>())),
        ) {
            let digest = digest.map(|bytes| Digest::of(&bytes));
            let reference = Reference { location: Location::Registry(Repository { host, name }), tag, digest };
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "(oci://|oci-layout:)?\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
