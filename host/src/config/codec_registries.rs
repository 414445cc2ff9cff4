//! The sections of registries with codecs.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::Size;
use crate::oci::RegistrySettings;

/// The prefix of a mirror that is a folder.
const LAYOUT: &str = "oci-layout:";

/// `[registries."HOST"]`: how to reach a registry with codecs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CodecRegistryConfig {
    /// A file with certificates of authorities, which are trusted beside those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// The file with the credentials, in the format of docker's config.json.
    pub(crate) auth_file: Option<PathBuf>,
    /// Where to look first, by digest only: oci-layout:DIR, or oci://HOST/REPO.
    #[serde(default)]
    pub(crate) mirrors: Vec<String>,
    /// Other hosts that may receive credentials to issue a token.
    #[serde(default)]
    pub(crate) auth_hosts: Vec<String>,
    /// Whether to use HTTP without TLS. By default, only registries on this machine may, if they do not use TLS.
    pub(crate) plain_http: Option<bool>,
    /// The largest component that is fetched.
    #[serde(default, with = "Size")]
    pub(crate) max_size: Option<usize>,
}

impl CodecRegistryConfig {
    /// Resolves relative paths, and checks the host, which is the name of the section.
    pub(super) fn resolve_paths(
        &mut self,
        host: &str,
        resolve: impl Fn(&Path, &str) -> Result<PathBuf, String>,
    ) -> Result<(), String> {
        let section = format!("registries.\"{host}\"");
        if host.contains('/') {
            return Err(format!("{section}: write only the host, with its port: \"registry.example:5000\""));
        }
        for (path, setting) in [(&mut self.ca, "ca"), (&mut self.auth_file, "auth_file")] {
            if let Some(path) = path {
                *path = resolve(path, &format!("{section}.{setting}"))?;
            }
        }
        for mirror in &mut self.mirrors {
            if let Some(folder) = mirror.strip_prefix(LAYOUT) {
                let folder = resolve(Path::new(folder), &format!("{section}.mirrors"))?;
                *mirror = format!("{LAYOUT}{}", folder.display());
            }
        }
        Ok(())
    }

    pub(crate) fn settings(&self) -> RegistrySettings {
        RegistrySettings {
            ca: self.ca.clone(),
            auth_file: self.auth_file.clone(),
            mirrors: self.mirrors.clone(),
            auth_hosts: self.auth_hosts.clone(),
            plain_http: self.plain_http,
            max_size: self.max_size,
        }
    }
}
