//! Answers to a registry that asks who the client is: a password, or a token from the place that the registry names, if
//! credentials may go there.

use std::net::IpAddr;
use std::time::Duration;

use http_auth::ChallengeRef;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;

use crate::escape::one_line_within;
use crate::oci::credentials::Credentials;
use crate::oci::manifest::MAX_MANIFEST_BYTES;
use crate::oci::settings::NetworkLimits;
use crate::oci::{OciError, Repository};

/// How often a token is requested at most.
const TRIES: usize = 3;

/// The longest token that is sent, in bytes.
const MAX_TOKEN_BYTES: usize = 32 << 10;

/// The parameter of a token's scope that a registry may name, in bytes.
const MAX_PARAMETER_BYTES: usize = 2 << 10;

/// How much of what a registry says an error repeats, in bytes.
const SHOWN: usize = 200;

/// How a registry wants to be told who the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        /// Where tokens are issued.
        realm: String,
        service: Option<String>,
    },
}

impl Challenge {
    /// Finds the challenge that can be answered. A token is preferred to a password.
    pub(super) fn find(headers: &HeaderMap) -> Option<Self> {
        let texts: Vec<&str> =
            headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let challenges: Vec<ChallengeRef<'_>> =
            texts.iter().filter_map(|text| http_auth::parse_challenges(text).ok()).flatten().collect();
        let bearer = challenges.iter().find_map(|challenge| {
            let value = |wanted: &str| {
                let found = challenge.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
                found
                    .map(|(_, value)| value.to_unescaped())
                    .filter(|value| value.len() <= MAX_PARAMETER_BYTES)
            };
            let is_bearer = challenge.scheme.eq_ignore_ascii_case("bearer");
            let realm = value("realm").filter(|_| is_bearer)?;
            Some(Self::Bearer { realm, service: value("service") })
        });
        bearer.or_else(|| {
            challenges
                .iter()
                .any(|challenge| challenge.scheme.eq_ignore_ascii_case("basic"))
                .then_some(Self::Basic)
        })
    }
}

/// What a request for a token needs to know.
pub(super) struct TokenRequest<'a> {
    pub(super) repository: &'a Repository,
    /// Whether the registry itself is used without TLS.
    pub(super) is_plain: bool,
    /// Other hosts that may receive credentials.
    pub(super) auth_hosts: &'a [String],
    pub(super) credentials: &'a Credentials,
    /// `pull`, or `pull,push`.
    pub(super) actions: &'static str,
    pub(super) http: &'a Client,
    pub(super) limits: NetworkLimits,
}

/// What a token endpoint answers.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl TokenRequest<'_> {
    /// Answers a challenge: returns the value of the header `Authorization`, or `None` if there is nothing to present.
    pub(super) async fn answer(&self, challenge: &Challenge) -> Result<Option<HeaderValue>, OciError> {
        match challenge {
            Challenge::Basic => Ok(match self.credentials {
                Credentials::Password { user, password, .. } => basic(user, password),
                _ => None,
            }),
            Challenge::Bearer { realm, service } => {
                let url = self.check_realm(realm)?;
                let request = async || self.request(url.clone(), service.as_deref()).await;
                let mut pause = self.limits.pause;
                for _ in 1..TRIES {
                    match request().await {
                        Err(TokenError::Temporary(_)) => tokio::time::sleep(pause).await,
                        result => return finish(result),
                    }
                    pause *= 2;
                }
                finish(request().await)
            }
        }
    }

    /// Parses the address of a token endpoint. Credentials may go only to the registry itself, and to hosts that the user
    /// names.
    fn check_realm(&self, realm: &str) -> Result<Url, OciError> {
        let host = &self.repository.host;
        let refuse = |what: &str| {
            let realm = one_line_within(realm, SHOWN);
            OciError::Failed(format!(
                "cannot authenticate with {host}: it sends clients to {realm} for a token, and {what}. Check the \
                 registry's configuration."
            ))
        };
        let Ok(url) = Url::parse(realm) else { return Err(refuse("that is no URL")) };
        let Some(name) = url.host_str() else { return Err(refuse("that is no URL of a server")) };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("ktables does not use a URL with a user name"));
        }
        match url.scheme() {
            "https" => {}
            "http" if self.is_plain => {}
            "http" => return Err(refuse("ktables does not send credentials without TLS")),
            _ => return Err(refuse("ktables uses only https there")),
        }
        if is_forbidden_address(name) {
            return Err(refuse("ktables does not connect to such an address"));
        }
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let target = format!("{name}{port}");
        let own = host.strip_suffix(":443").filter(|_| !self.is_plain).unwrap_or(host);
        let own = own.strip_suffix(":80").filter(|_| self.is_plain).unwrap_or(own);
        let is_known = matches!((own, &*target), ("docker.io" | "registry-1.docker.io", "auth.docker.io"));
        let is_allowed = self.auth_hosts.iter().any(|allowed| *allowed == target || *allowed == name);
        if target == own || is_known || is_allowed {
            return Ok(url);
        }
        Err(OciError::Failed(format!(
            "cannot authenticate with {host}: it sends clients to {} for a token, and ktables does not send credentials to \
             that host. If you trust the host, add it to `auth_hosts`.",
            one_line_within(&target, SHOWN)
        )))
    }

    async fn request(&self, mut url: Url, service: Option<&str>) -> Result<String, TokenError> {
        // What a registry asks for in its challenge may be more than this request needs.
        let scope = format!("repository:{}:{}", self.repository.name, self.actions);
        let request = match self.credentials {
            Credentials::IdentityToken { token, .. } => {
                let mut form = vec![
                    ("grant_type", "refresh_token"),
                    ("client_id", "ktables"),
                    ("scope", &*scope),
                    ("refresh_token", token),
                ];
                form.extend(service.map(|service| ("service", service)));
                let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
                let form: Vec<String> =
                    form.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
                self.http
                    .post(url)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.join("&"))
            }
            credentials => {
                if let Some(service) = service {
                    url.query_pairs_mut().append_pair("service", service);
                }
                url.query_pairs_mut().append_pair("scope", &scope);
                let header = match credentials {
                    Credentials::Password { user, password, .. } => basic(user, password),
                    _ => None,
                };
                let request = self.http.get(url);
                header.into_iter().fold(request, |request, header| request.header(AUTHORIZATION, header))
            }
        };
        let temporary = |what: &str| TokenError::Temporary(self.failed(what));
        let response = request.send().await.map_err(|error| temporary(&describe(&error)))?;
        self.check_status(response.status())?;
        // A server that sends a byte now and then would be read for long.
        let body =
            match tokio::time::timeout(self.limits.read, read_bounded(response, MAX_MANIFEST_BYTES)).await {
                Ok(body) => body.map_err(|reason| TokenError::Final(self.failed(&reason)))?,
                Err(_) => return Err(temporary("did not answer in time")),
            };
        let answer: Option<TokenAnswer> = serde_json::from_slice(&body).ok();
        let token =
            answer.and_then(|answer| answer.token.or(answer.access_token)).filter(|token| !token.is_empty());
        let refuse = |what: &str| Err(TokenError::Final(self.failed(what)));
        match token {
            Some(token) if token.len() > MAX_TOKEN_BYTES => refuse("answered with a token that is too long"),
            Some(token) if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(token),
            Some(_) => refuse("answered with a token that cannot be a header"),
            None => refuse("answered without a token"),
        }
    }

    /// Fails unless the server for tokens answers with success.
    fn check_status(&self, status: StatusCode) -> Result<(), TokenError> {
        let code = status.as_u16();
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(TokenError::Final(self.credentials.denied(&self.repository.host, code)))
            }
            status if status.is_redirection() => {
                let what = "redirects to another address, which ktables does not follow";
                Err(TokenError::Final(self.failed(what)))
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(TokenError::Temporary(self.failed(&format!("answered with an error ({code})"))))
            }
            _ => Err(TokenError::Final(self.failed(&format!("answered with an error ({code})")))),
        }
    }

    fn failed(&self, what: &str) -> OciError {
        OciError::Failed(format!(
            "cannot authenticate with {}: the server for tokens {what}. Check the registry.",
            self.repository.host
        ))
    }
}

/// Why there is no token.
enum TokenError {
    /// It may pass.
    Temporary(OciError),
    Final(OciError),
}

/// Returns the header with a token.
fn finish(result: Result<String, TokenError>) -> Result<Option<HeaderValue>, OciError> {
    match result {
        Ok(token) => Ok(sensitive(&format!("Bearer {token}"))),
        Err(TokenError::Temporary(error) | TokenError::Final(error)) => Err(error),
    }
}

/// Whether an address must not be reached on behalf of a registry: those of link-local networks, where clouds have
/// services with the credentials of machines.
pub(super) fn is_forbidden_address(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address.map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => {
            address.is_link_local() || address.is_unspecified() || address.is_broadcast() || address.is_multicast()
                // The service of Alibaba's cloud.
                || address.octets() == [100, 100, 100, 200]
        }
        Ok(IpAddr::V6(address)) => {
            address.is_unicast_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                // The service of Amazon's cloud.
                || address.segments()[..3] == [0xfd00, 0xec2, 0]
        }
        Err(_) => false,
    }
}

fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    use base64::Engine as _;
    let encoded = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
    sensitive(&format!("Basic {encoded}"))
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Says why a request failed.
pub(super) fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "did not answer in time".to_owned();
    }
    let mut reason = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason = cause.to_string();
        source = cause.source();
    }
    format!("cannot be reached ({})", one_line_within(&reason, SHOWN))
}

/// Reads an answer of at most `limit` bytes.
pub(super) async fn read_bounded(mut response: Response, limit: u64) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if (body.len() + chunk.len()) as u64 > limit => {
                return Err(format!("sent more than {limit} bytes"));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(describe(&error)),
        }
    }
}

/// How long a token is used at most before another one is requested. Registries issue them for a minute or more.
pub(super) const TOKEN_AGE: Duration = Duration::from_secs(55);

#[cfg(test)]
mod tests {
    use super::*;

    fn find(texts: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(text).unwrap());
        }
        Challenge::find(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        let own = |text: &str| text.to_owned();
        Some(Challenge::Bearer { realm: own(realm), service: service.map(own) })
    }

    #[test]
    fn challenges_are_parsed() {
        let expected = bearer("https://a.b/token", Some("a.b"));
        let text = "Bearer realm=\"https://a.b/token\",service=\"a.b\",scope=\"repository:x:pull,push\"";
        assert_eq!(find(&[text]), expected);
        assert_eq!(find(&["Basic realm=\"x\"", text]), expected, "a token is preferred");
        assert_eq!(find(&[&format!("Basic realm=\"x, y\", {text}")]), expected, "several in one header");
        assert_eq!(find(&["bearer REALM=\"https://a.b/\\\"q\\\"\""]), bearer("https://a.b/\"q\"", None));
        assert_eq!(find(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        for text in ["", "Bearer", "Bearer service=\"x\"", "Negotiate", "=,=\"", "Bearer realm=\"unclosed"] {
            assert_eq!(find(&[text]), None, "{text}");
        }
        assert_eq!(find(&[&format!("Bearer realm=\"https://a.b/{}\"", "x".repeat(4_000))]), None);
    }

    fn check(host: &str, is_plain: bool, realm: &str) -> Result<Url, String> {
        let repository = Repository { host: host.to_owned(), name: "x".to_owned() };
        let request = TokenRequest {
            repository: &repository,
            is_plain,
            auth_hosts: &[
                "gitlab.example".to_owned(),
                "10.0.0.1:5001".to_owned(),
                "169.254.169.254".to_owned(),
            ],
            credentials: &Credentials::Anonymous { searched: Vec::new() },
            actions: "pull",
            http: &Client::new(),
            limits: NetworkLimits::default(),
        };
        request.check_realm(realm).map_err(|error| error.to_string())
    }

    #[test]
    fn credentials_go_only_to_hosts_that_may_have_them() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for (host, realm) in [
            ("registry.example", "https://registry.example/token"),
            ("registry.example:443", "https://registry.example/token"),
            ("registry.example", "https://registry.example:443/token"),
            ("registry.example", "https://gitlab.example/jwt/auth"),
            ("registry.example", "https://10.0.0.1:5001/auth"),
            ("docker.io", "https://auth.docker.io/token"),
        ] {
            check(host, false, realm).unwrap();
        }
        let error = check("registry.example", false, "https://auth.other.net/token").unwrap_err();
        assert_eq!(
            error,
            "cannot authenticate with registry.example: it sends clients to auth.other.net for a token, and ktables does \
             not send credentials to that host. If you trust the host, add it to `auth_hosts`."
        );
        for realm in [
            "https://registry.example.evil/token",
            "https://registry.example:5001/token",
            "https://auth.docker.io/token",
            "http://registry.example/token",
            "https://user:secret@registry.example/token",
            "https://169.254.169.254/token",
            "https://[fe80::1]/token",
            "https://[::ffff:169.254.169.254]/token",
            "ftp://registry.example/token",
            "file:///etc/passwd",
            "/token",
            "",
        ] {
            assert!(check("registry.example", false, realm).is_err(), "{realm}");
        }
        check("127.0.0.1:5000", true, "http://127.0.0.1:5000/token").unwrap();
        assert!(check("127.0.0.1:5000", true, "http://127.0.0.1:5001/token").is_err());
    }
}
