//! The section `[schema_registries.NAME]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::PositiveDuration;
use crate::registry::{DEFAULT_TIMEOUT, RegistryOptions};

/// `[schema_registries.NAME]`: a schema registry.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistryConfig {
    /// Its address, or several: if one does not answer, the next one is asked.
    pub(crate) url: Urls,
    /// The user, and the password.
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    /// A file with a bearer token, which is read for each request.
    pub(crate) token_file: Option<PathBuf>,
    /// A PEM file with the authorities of its certificate; those of the system by default.
    pub(crate) ca: Option<PathBuf>,
    /// PEM files with the client's certificate, and its private key.
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// How long a request may take.
    #[serde(default = "default_timeout", with = "PositiveDuration")]
    pub(crate) timeout: Duration,
}

/// One address, or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Urls {
    One(String),
    Many(Vec<String>),
}

fn default_timeout() -> Duration {
    DEFAULT_TIMEOUT
}

impl std::fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.options().fmt(f)
    }
}

impl RegistryConfig {
    /// Creates the section of a registry with default settings.
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: Urls::One(url.to_owned()),
            username: None,
            password: None,
            token_file: None,
            ca: None,
            certificate: None,
            key: None,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// Resolves relative paths.
    pub(super) fn resolve_paths(
        &mut self,
        resolve: impl Fn(&Path, &str) -> Result<PathBuf, String>,
    ) -> Result<(), String> {
        let files = [
            ("token_file", &mut self.token_file),
            ("ca", &mut self.ca),
            ("certificate", &mut self.certificate),
            ("key", &mut self.key),
        ];
        for (setting, file) in files {
            if let Some(file) = file {
                *file = resolve(file, setting)?;
            }
        }
        Ok(())
    }

    pub(crate) fn options(&self) -> RegistryOptions {
        let Self { url, username, password, token_file, ca, certificate, key, timeout } = self.clone();
        let urls = match url {
            Urls::One(url) => vec![url],
            Urls::Many(urls) => urls,
        };
        RegistryOptions { urls, username, password, token_file, ca, certificate, key, timeout }
    }
}
