//! The options of a schema registry: its addresses, credentials and certificates.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, Identity, Url};

use crate::escape::one_line;
use crate::file::read_text;
use crate::registry::RegistryError;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one attempt may take.
const MAX_ATTEMPT_TIME: Duration = Duration::from_secs(10);

/// The largest file with a token or certificates that is read, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;

/// The options of a schema registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RegistryOptions {
    /// Its addresses. If one does not answer, the next one is asked.
    pub(crate) urls: Vec<String>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    /// A file with a bearer token, which is read again for each request.
    pub(crate) token_file: Option<PathBuf>,
    /// A PEM file with the certificates of the authorities that are trusted; those of the system by default.
    pub(crate) ca: Option<PathBuf>,
    /// PEM files with the certificate of this client, and its private key.
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// How long a request may take, with all of its attempts.
    pub(crate) timeout: Duration,
}

impl std::fmt::Debug for RegistryOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the credentials.
        f.debug_struct("RegistryOptions").field("urls", &self.urls).finish_non_exhaustive()
    }
}

impl RegistryOptions {
    /// The options of a registry without access control.
    pub(crate) fn new(url: &str) -> Self {
        Self {
            urls: vec![url.to_owned()],
            username: None,
            password: None,
            token_file: None,
            ca: None,
            certificate: None,
            key: None,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// Parses the addresses.
    pub(super) fn parse_urls(&self) -> Result<Vec<Url>, RegistryError> {
        if self.urls.is_empty() {
            return Err(RegistryError::Options(
                "a schema registry needs an address: url = \"http://…\"".to_owned(),
            ));
        }
        match (&self.username, &self.password, &self.token_file) {
            (None, Some(_), _) => {
                return Err(RegistryError::Options("a password needs a username".to_owned()));
            }
            (Some(_), _, Some(_)) => {
                return Err(RegistryError::Options("username and token_file exclude each other".to_owned()));
            }
            _ => {}
        }
        self.urls.iter().map(|url| parse_url(url)).collect()
    }

    /// Creates the client of HTTP.
    pub(super) fn client(&self) -> Result<Client, RegistryError> {
        // OK to ignore: it was installed before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // So that one that hangs leaves time for the others.
            .timeout((self.timeout / (self.urls.len() as u32 + 1)).min(MAX_ATTEMPT_TIME))
            // Credentials must not go elsewhere.
            .redirect(reqwest::redirect::Policy::none());
        if let Some(file) = &self.ca {
            let pem = read(file)?;
            let certificates =
                Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| unusable(file, &error))?;
            if certificates.is_empty() {
                return Err(RegistryError::Options(format!("{} has no certificate", file.display())));
            }
            builder = builder.tls_certs_only(certificates);
        }
        builder = self.add_identity(builder)?;
        builder.build().map_err(|error| RegistryError::Options(error.to_string()))
    }

    fn add_identity(&self, builder: ClientBuilder) -> Result<ClientBuilder, RegistryError> {
        match (&self.certificate, &self.key) {
            (None, None) => Ok(builder),
            (Some(certificate), Some(key)) => {
                let pem = format!("{}\n{}", read(certificate)?, read(key)?);
                let identity =
                    Identity::from_pem(pem.as_bytes()).map_err(|error| unusable(certificate, &error))?;
                Ok(builder.identity(identity))
            }
            _ => Err(RegistryError::Options("certificate and key need each other".to_owned())),
        }
    }

    /// Reads the bearer token, if there is one.
    pub(super) fn token(&self) -> Result<Option<String>, RegistryError> {
        self.token_file.as_ref().map(|file| Ok(read(file)?.trim().to_owned())).transpose()
    }
}

/// How long a request may take by default.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

fn parse_url(text: &str) -> Result<Url, RegistryError> {
    // First, because errors quote the address.
    if text.contains('@') {
        let reason = "the address of a schema registry has no user and no password: set username and password in \
                      [schema_registries.NAME]";
        return Err(RegistryError::Options(reason.to_owned()));
    }
    let invalid = |reason: &str| {
        RegistryError::Options(format!(
            "`{}` is not the address of a schema registry: {reason}",
            one_line(text)
        ))
    };
    let mut url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("it begins with http:// or https://"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("it has no `?` and no `#`"));
    }
    // What follows is appended.
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn read(file: &std::path::Path) -> Result<String, RegistryError> {
    read_text(file, MAX_FILE_BYTES)
        .map_err(|error| RegistryError::Options(format!("cannot read {}: {error}", file.display())))
}

fn unusable(file: &std::path::Path, error: &reqwest::Error) -> RegistryError {
    RegistryError::Options(format!("{} cannot be used: {error}", file.display()))
}
