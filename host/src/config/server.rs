//! The sections `[server]` and `[access]`: how a process serves its tables, and to whom.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::config::describe::{describe_syntax_error, describe_value_error};
use crate::config::values::{HumanDuration, PositiveDuration, Size};
use crate::file::read_text;

/// Where the server listens by default.
const DEFAULT_LISTEN: &str = "127.0.0.1:7470";

/// The largest file of clients that is read, in bytes.
const MAX_CLIENTS_BYTES: usize = 4 << 20;

/// `[server]`: how the process serves its tables.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServerConfig {
    /// Where the API is served.
    pub(crate) listen: Vec<ListenAddress>,
    /// Where the health checks and the metrics are served, too.
    pub(crate) health_listen: Vec<ListenAddress>,
    /// The certificate of the server.
    pub(crate) tls: Option<TlsConfig>,
    /// The tables that are served; all of them by default.
    pub(crate) tables: Option<Vec<String>>,
    /// Where the token for administration is written, if there is no access control.
    pub(crate) admin_token_file: Option<PathBuf>,
    /// The origins that browsers may call the API from.
    pub(crate) cors_origins: Vec<String>,
    /// How long a degraded table may have been stale for an absent key to be "not found".
    #[serde(with = "HumanDuration")]
    pub(crate) max_staleness: Duration,
    /// Open connections.
    pub(crate) max_connections: u32,
    /// Open connections from one address.
    pub(crate) max_connections_per_address: u32,
    /// Requests that are answered at once.
    pub(crate) max_requests: u32,
    /// Those of one client.
    pub(crate) max_requests_per_client: u32,
    /// Open watches.
    pub(crate) max_watchers: u32,
    /// Those of one client.
    pub(crate) max_watchers_per_client: u32,
    /// The body of a request.
    #[serde(with = "Size")]
    pub(crate) max_body: usize,
    /// The component of a swap.
    #[serde(with = "Size")]
    pub(crate) max_component: usize,
    /// Time for a body, and by default for a write or a barrier.
    #[serde(with = "PositiveDuration")]
    pub(crate) request_timeout: Duration,
    /// Time for the head of a request, also of the next one on a connection.
    #[serde(with = "PositiveDuration")]
    pub(crate) header_timeout: Duration,
    /// How long a client may read nothing.
    #[serde(with = "PositiveDuration")]
    pub(crate) stalled_timeout: Duration,
    /// Time for stopping.
    #[serde(with = "PositiveDuration")]
    pub(crate) shutdown_timeout: Duration,
    /// Time between two bookmarks of a watch.
    #[serde(with = "PositiveDuration")]
    pub(crate) bookmark_interval: Duration,
    /// Time after which a watch ends, up to a tenth more or less.
    #[serde(with = "PositiveDuration")]
    pub(crate) watch_duration: Duration,
    /// How long the old codecs of a table follow the topic after a swap.
    #[serde(with = "HumanDuration")]
    pub(crate) swap_back: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            // OK because it is a valid address.
            listen: vec![DEFAULT_LISTEN.parse().expect("an address")],
            health_listen: Vec::new(),
            tls: None,
            tables: None,
            admin_token_file: None,
            cors_origins: Vec::new(),
            max_staleness: Duration::ZERO,
            max_connections: 10_000,
            max_connections_per_address: 5_000,
            max_requests: 1_024,
            max_requests_per_client: 512,
            max_watchers: 5_000,
            max_watchers_per_client: 2_500,
            max_body: 16 << 20,
            max_component: 64 << 20,
            request_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(10),
            stalled_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(30),
            bookmark_interval: Duration::from_secs(10),
            watch_duration: Duration::from_secs(3600),
            swap_back: Duration::from_secs(600),
        }
    }
}

impl ServerConfig {
    /// Resolves relative paths against a folder.
    pub(super) fn resolve_paths(
        &mut self,
        resolve: impl Fn(&Path, &str) -> Result<PathBuf, String>,
    ) -> Result<(), String> {
        for address in self.listen.iter_mut().chain(&mut self.health_listen) {
            if let ListenAddress::Unix(path) = address {
                *path = resolve(path, "server.listen")?;
            }
        }
        if let Some(path) = &mut self.admin_token_file {
            *path = resolve(path, "server.admin_token_file")?;
        }
        let Some(tls) = &mut self.tls else { return Ok(()) };
        tls.certificate = resolve(&tls.certificate, "server.tls.certificate")?;
        tls.key = resolve(&tls.key, "server.tls.key")?;
        if let Some(path) = &mut tls.client_ca {
            *path = resolve(path, "server.tls.client_ca")?;
        }
        Ok(())
    }
}

/// An address to listen on: `HOST:PORT`, or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether only programs of this machine can connect.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl std::str::FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let text =
            text.strip_prefix("localhost:").map_or(text.to_owned(), |port| format!("127.0.0.1:{port}"));
        text.parse().map(Self::Tcp).map_err(|_| {
            "it is not an address: write \"127.0.0.1:7470\", \"[::1]:7470\" or \"unix:/run/ktables.sock\""
                .to_owned()
        })
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ListenAddress> for String {
    fn from(address: ListenAddress) -> Self {
        address.to_string()
    }
}

impl JsonSchema for ListenAddress {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ListenAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["127.0.0.1:7470", "unix:ktables.sock"] })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `tls = { … }`: PEM files, which are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsConfig {
    /// The certificate and its chain.
    pub(crate) certificate: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
    /// The authorities of clients' certificates. With it, clients may present a certificate.
    pub(crate) client_ca: Option<PathBuf>,
}

/// `[access]`: who may do what. Without it, only programs of this machine have access.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessConfig {
    /// The clients, by name.
    #[serde(default)]
    pub(crate) clients: BTreeMap<String, ClientConfig>,
    /// A file with further clients, which is read again when it changes: a section `[NAME]` for each.
    pub(crate) clients_file: Option<PathBuf>,
}

/// `[access.clients.NAME]`: how a client proves who it is, and for which tables it has which role. A table is
/// given by its name, or a pattern with `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientConfig {
    /// The SHA-256 of its token, in hexadecimal.
    pub(crate) token_sha256: Option<String>,
    /// A DNS name for which its certificate is valid.
    pub(crate) certificate_name: Option<String>,
    /// The tables that it may read and watch.
    #[serde(default)]
    pub(crate) read: Vec<String>,
    /// The tables whose raw records it may read.
    #[serde(default)]
    pub(crate) read_raw: Vec<String>,
    /// The tables that it may write.
    #[serde(default)]
    pub(crate) write: Vec<String>,
    /// The tables whose codecs it may swap.
    #[serde(default)]
    pub(crate) admin: Vec<String>,
}

/// The content of a file of clients: a section `[NAME]` for each.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ServerClients(pub(crate) BTreeMap<String, ClientConfig>);

impl ServerClients {
    /// Reads a file. An error names it, and quotes none of its values.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let describe = |reason: String| format!("access.clients_file: {}: {reason}", path.display());
        let text = read_text(path, MAX_CLIENTS_BYTES).map_err(|error| describe(error.to_string()))?;
        let table: toml::Table =
            text.parse().map_err(|error| describe(describe_syntax_error(&error, &text)))?;
        table.try_into().map_err(|error: toml::de::Error| describe(describe_value_error(&error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_or_a_socket() {
        let parse = |text: &str| text.parse::<ListenAddress>();
        for (text, is_local) in [
            ("127.0.0.1:1", true),
            ("localhost:1", true),
            ("[::1]:1", true),
            ("unix:/run/k.sock", true),
            ("0.0.0.0:1", false),
            ("10.0.0.1:1", false),
        ] {
            assert_eq!(parse(text).unwrap().is_local(), is_local, "{text}");
        }
        for text in ["", "127.0.0.1", "unix:", "host:1", ":1"] {
            assert!(parse(text).unwrap_err().contains("127.0.0.1:7470"), "{text}");
        }
    }
}
