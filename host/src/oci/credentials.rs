//! The credentials of registries, from the files and helpers that docker, podman and other tools use.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::escape::one_line_within;
use crate::file::{FileError, read_bounded};
use crate::oci::{OciError, Repository};

/// The largest file with credentials that is read, and the longest answer of a helper, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;
const MAX_HELPER_BYTES: u64 = 64 << 10;

/// The name under which docker stores credentials for docker.io.
const DOCKER_HUB: &str = "index.docker.io";

/// How much of what a helper says a message repeats, in bytes.
const SHOWN: usize = 200;

/// What a client presents to a registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// None were found.
    Anonymous {
        /// Where they were searched.
        searched: Vec<String>,
    },
    Password {
        user: String,
        password: String,
        /// The file or the helper that they came from.
        source: String,
    },
    /// A refresh token, which is exchanged for a token of one request.
    IdentityToken { token: String, source: String },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Credentials {
    /// Returns the error of a registry that denies access.
    pub(crate) fn denied(&self, host: &str, status: u16) -> OciError {
        OciError::Failed(match self {
            Self::Anonymous { searched } if searched.is_empty() => format!(
                "cannot access {host}: it denied access ({status}) to an anonymous client. ktables sent no credentials, because \
                 it found no file with credentials (searched $REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json, \
                 ~/.docker/config.json, $XDG_RUNTIME_DIR/containers/auth.json). Add an entry for it."
            ),
            Self::Anonymous { searched } => {
                let (last, all) = (searched.last().map_or("", String::as_str), searched.join(", "));
                format!(
                    "cannot access {host}: it denied access ({status}) to an anonymous client. ktables sent no credentials, \
                     because {last} has no entry for this registry (searched {all}). Add an entry for it."
                )
            }
            known => format!(
                "cannot access {host}: it denied access ({status}) to {}. Check the credentials and permissions of this user.",
                known.describe()
            ),
        })
    }

    /// Says who the client is, for errors.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Anonymous { .. } => "an anonymous client".to_owned(),
            Self::Password { user, source, .. } => {
                format!("user `{}` from {source}", one_line_within(user, SHOWN))
            }
            Self::IdentityToken { source, .. } => format!("the identity token from {source}"),
        }
    }
}

/// The format of docker's config.json, as far as it concerns credentials.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    /// The user and the password, in base64.
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth")
    }
}

/// What a credential helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Finds the credentials for a repository. A file that is missing, and a helper that fails, are not errors: the client stays
/// anonymous.
pub(crate) async fn find(
    repository: &Repository,
    auth_file: Option<&Path>,
    helper_timeout: Duration,
) -> Result<Credentials, OciError> {
    let mut searched = Vec::new();
    for path in candidate_files(auth_file) {
        let is_required = auth_file == Some(path.as_path());
        let bytes = match read_bounded(&path, MAX_FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if is_required => {
                return Err(FileError::of::<OciError>("read `auth_file`", &path)(error));
            }
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!("cannot read the credentials in {}: {error}", path.display());
                }
                continue;
            }
        };
        searched.push(path.display().to_string());
        match find_in(&bytes, &path, repository, helper_timeout).await {
            Ok(Some(credentials)) => return Ok(credentials),
            Ok(None) => {}
            Err(reason) if is_required => {
                return Err(OciError::Usage(format!("cannot use `auth_file` {}: {reason}", path.display())));
            }
            Err(reason) => tracing::warn!("cannot use the credentials in {}: {reason}", path.display()),
        }
    }
    Ok(Credentials::Anonymous { searched })
}

/// Returns the files with credentials, those that decide first.
fn candidate_files(auth_file: Option<&Path>) -> Vec<PathBuf> {
    let from = |name: &str, rest: &str| {
        let folder = env::var_os(name).filter(|value| !value.is_empty())?;
        Some(Path::new(&folder).join(rest))
    };
    let variable = env::var_os("REGISTRY_AUTH_FILE").filter(|value| !value.is_empty()).map(PathBuf::from);
    let candidates = [
        auth_file.map(Path::to_owned),
        variable,
        from("DOCKER_CONFIG", "config.json"),
        from("HOME", ".docker/config.json"),
        from("XDG_RUNTIME_DIR", "containers/auth.json"),
    ];
    candidates.into_iter().flatten().collect()
}

/// Finds credentials in a file. An error says what is wrong with the file.
async fn find_in(
    bytes: &[u8],
    path: &Path,
    repository: &Repository,
    helper_timeout: Duration,
) -> Result<Option<Credentials>, String> {
    // The error would quote a part of the file.
    let file: AuthFile = serde_json::from_slice(bytes)
        .map_err(|error| format!("it is malformed at line {}, column {}", error.line(), error.column()))?;
    let names = server_names(&repository.host);
    let helper = names.iter().find_map(|name| file.cred_helpers.get(name));
    if let Some(helper) = helper
        && let Some(credentials) = ask_helper(helper, &names[0], helper_timeout).await
    {
        return Ok(Some(credentials));
    }
    if let Some(auth) = find_auth(&file.auths, repository)
        && let Some(credentials) = auth.credentials(path)?
    {
        return Ok(Some(credentials));
    }
    match &file.creds_store {
        Some(store) if helper.is_none() => Ok(ask_helper(store, &names[0], helper_timeout).await),
        _ => Ok(None),
    }
}

/// Returns the names under which tools store the credentials of a registry.
fn server_names(host: &str) -> Vec<String> {
    match host {
        "docker.io" | DOCKER_HUB | "registry-1.docker.io" => {
            vec![format!("https://{DOCKER_HUB}/v1/"), DOCKER_HUB.to_owned(), "docker.io".to_owned()]
        }
        host => vec![host.to_owned(), format!("https://{host}"), format!("http://{host}")],
    }
}

/// Finds the entry for a repository: the one with the longest path decides.
fn find_auth<'a>(auths: &'a BTreeMap<String, Auth>, repository: &Repository) -> Option<&'a Auth> {
    let hosts = server_names(&repository.host);
    let full = repository.to_string();
    let matches = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        let key = key.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
        let is_host = hosts.iter().any(|host| {
            host.trim_start_matches("https://").trim_end_matches("/v1/").trim_start_matches("http://") == key
        });
        let is_prefix = full.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        (is_host || is_prefix).then_some(key.len())
    };
    auths
        .iter()
        .filter_map(|(key, auth)| Some((matches(key)?, auth)))
        .max_by_key(|(len, _)| *len)
        .map(|(_, auth)| auth)
}

impl Auth {
    fn credentials(&self, path: &Path) -> Result<Option<Credentials>, String> {
        let source = shown_path(path);
        if let Some(token) = self.identitytoken.clone().filter(|token| !token.is_empty()) {
            return Ok(Some(Credentials::IdentityToken { token, source }));
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            let decoded =
                BASE64_STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let decoded = decoded.as_ref().and_then(|text| text.split_once(':'));
            let Some((user, password)) = decoded else {
                return Err("`auth` is not base64 of USER:PASSWORD".to_owned());
            };
            // Some tools pad the text with zeros.
            let password = password.trim_end_matches('\0').to_owned();
            return Ok(Some(Credentials::Password { user: user.to_owned(), password, source }));
        }
        Ok(match (&self.username, &self.password) {
            (Some(user), Some(password)) => {
                Some(Credentials::Password { user: user.clone(), password: password.clone(), source })
            }
            // `docker login` with a store of credentials leaves an empty entry.
            _ => None,
        })
    }
}

/// Shortens a path in the home folder.
fn shown_path(path: &Path) -> String {
    let home = env::var_os("HOME").filter(|home| !home.is_empty());
    match home.and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned)) {
        Some(rest) => format!("~/{}", rest.display()),
        None => path.display().to_string(),
    }
}

/// Asks a credential helper. If it fails, logs a warning, and returns `None`.
async fn ask_helper(name: &str, server: &str, timeout: Duration) -> Option<Credentials> {
    let shown = one_line_within(name, SHOWN).to_string();
    match tokio::time::timeout(timeout, run_helper(name, server)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(reason)) => {
            tracing::warn!(
                "the credential helper docker-credential-{shown} failed: {reason}; continuing without credentials"
            );
            None
        }
        Err(_) => {
            let seconds = timeout.as_secs_f32();
            tracing::warn!(
                "the credential helper docker-credential-{shown} did not answer in {seconds} s; continuing without \
                 credentials"
            );
            None
        }
    }
}

async fn run_helper(name: &str, server: &str) -> Result<Option<Credentials>, String> {
    if name.is_empty() || name.contains('/') || name.contains('\0') {
        return Err("its name has a slash, or is empty".to_owned());
    }
    let program = format!("docker-credential-{name}");
    let mut child = tokio::process::Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    // OK because all three are piped.
    let (mut stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    // OK to ignore: one that does not read its input answers nonetheless.
    let _ = stdin.write_all(server.as_bytes()).await;
    drop(stdin);
    let mut answer = Vec::new();
    stdout.take(MAX_HELPER_BYTES + 1).read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
    if answer.len() as u64 > MAX_HELPER_BYTES {
        return Err(format!("it answered more than {MAX_HELPER_BYTES} bytes"));
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if !status.success() {
        let said = String::from_utf8_lossy(&answer);
        // That is how helpers say that they have no entry.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(format!("it ended with {status}: {}", one_line_within(said.trim(), SHOWN)));
    }
    let answer: HelperAnswer = serde_json::from_slice(&answer)
        .map_err(|_| "its answer is not JSON with Username and Secret".to_owned())?;
    let source = format!("the credential helper {program}");
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::IdentityToken { token: answer.secret, source },
        _ => Credentials::Password { user: answer.username, password: answer.secret, source },
    }))
}

#[cfg(any(feature = "fuzzing", test))]
/// Reads a file with credentials, for the fuzz target.
pub(super) fn check_auth_file(bytes: &[u8], path: &Path, repository: &Repository) {
    let Ok(file) = serde_json::from_slice::<AuthFile>(bytes) else { return };
    if let Some(auth) = find_auth(&file.auths, repository) {
        // OK to ignore: the entry may be valid or not.
        let _ = auth.credentials(path);
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn repository(host: &str) -> Repository {
        Repository { host: host.to_owned(), name: "codecs/a".to_owned() }
    }

    async fn find_text(text: &str, host: &str) -> Result<Option<Credentials>, String> {
        let path = Path::new("/auth.json");
        find_in(text.as_bytes(), path, &repository(host), Duration::from_secs(5)).await
    }

    fn password(user: &str, password: &str) -> Option<Credentials> {
        let (user, password) = (user.to_owned(), password.to_owned());
        Some(Credentials::Password { user, password, source: "/auth.json".to_owned() })
    }

    #[tokio::test]
    async fn entries_of_docker_and_podman_are_found() {
        let auth = BASE64_STANDARD.encode("ci:pass:word");
        for (key, host, is_found) in [
            ("registry.example", "registry.example", true),
            ("https://registry.example/v2/", "registry.example", true),
            ("registry.example/codecs", "registry.example", true),
            ("registry.example/cod", "registry.example", false),
            ("registry.example.evil", "registry.example", false),
            ("registry.example:5000", "registry.example", false),
            ("https://index.docker.io/v1/", "docker.io", true),
        ] {
            let text = format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}},"other":[1]}}"#);
            let found = find_text(&text, host).await.unwrap();
            assert_eq!(found, password("ci", "pass:word").filter(|_| is_found), "{key}");
        }
        let longest = format!(
            r#"{{"auths":{{"registry.example":{{"username":"a","password":"b"}},"registry.example/codecs":{{"auth":"{auth}"}}}}}}"#
        );
        assert_eq!(find_text(&longest, "registry.example").await.unwrap(), password("ci", "pass:word"));
        let token = r#"{"auths":{"registry.example":{"auth":"","identitytoken":"t"}}}"#;
        assert!(matches!(
            find_text(token, "registry.example").await.unwrap(),
            Some(Credentials::IdentityToken { token, .. }) if token == "t"
        ));
        assert_eq!(
            find_text(r#"{"auths":{"registry.example":{}}}"#, "registry.example").await.unwrap(),
            None
        );
        assert_eq!(find_text("{}", "registry.example").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_malformed_file_is_named_without_its_contents() {
        let error = find_text(r#"{"auths":{"registry.example":{"auth":12345}}}"#, "x.y").await.unwrap_err();
        assert!(error.contains("malformed at line 1") && !error.contains("12345"), "{error}");
        let error = find_text(r#"{"auths":{"x.y":{"auth":"!secret!"}}}"#, "x.y").await.unwrap_err();
        assert!(error.contains("base64") && !error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn a_named_file_must_exist_and_others_need_not() {
        let folder = TempDir::new().unwrap();
        let missing = folder.path().join("auth.json");
        let found = find(&repository("x.y"), Some(&missing), Duration::from_secs(1)).await;
        assert!(found.unwrap_err().to_string().contains("auth_file"));
    }

    #[tokio::test]
    async fn a_helper_that_fails_is_not_an_error() {
        for name in ["", "a/b", "no-such-helper-of-ktables"] {
            assert_eq!(ask_helper(name, "x.y", Duration::from_secs(5)).await, None, "{name}");
        }
    }
}
