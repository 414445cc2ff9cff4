//! Publishes which codecs this process runs: one entry for each table, in a compacted topic, so that a table of that topic
//! answers who runs a digest. The entries are deleted when the process stops; those of a process that was killed become old.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::codec::Codecs;
use crate::config::{ConfigError, FleetConfig};
use crate::file::read_text;
use crate::log::{EnsureTopic, Log, LogError, NewTopic, OnPolicyMismatch, ensure_topic};
use crate::serve::server::Server;
use crate::serve::tables::ServedTable;
use crate::wire::CodecsJson;
use crate::writer::Writer;

/// How long a write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The file with the name of this machine, or of this container.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Returns the name of this machine, or of this container.
fn host_name() -> String {
    let name = read_text(Path::new(HOST_NAME), 1024).or_else(|_| std::env::var("HOSTNAME"));
    name.map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// What a process publishes about a table.
#[derive(Serialize)]
struct FleetEntry<'a> {
    host: &'a str,
    process: u32,
    table: &'a str,
    topic: &'a str,
    codecs: CodecsJson<'a>,
    ktables: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    rejected: u64,
}

/// Publishes until the server shuts down.
pub(super) struct FleetPublisher {
    log: Arc<dyn Log>,
    config: FleetConfig,
    host: String,
    /// The keys that were published, and not deleted.
    published: BTreeSet<String>,
}

impl FleetPublisher {
    /// Opens the log, without waiting for it.
    pub(super) fn open(server: &Server, config: FleetConfig) -> Result<Self, ConfigError> {
        let log = server.catalog.load().open_fleet_log(&config.log)?;
        Ok(Self { log, config, host: host_name(), published: BTreeSet::new() })
    }

    /// Publishes in the background. The returned task ends after the server began to shut down, and the entries were deleted.
    pub(super) fn start(mut self, server: Arc<Server>) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut shutdown = server.shutdown.clone();
            let mut writer = None;
            while !server.is_shutting_down() {
                if let Err(error) = self.publish(&server, &mut writer).await {
                    tracing::warn!(
                        topic = self.config.topic,
                        "cannot publish the codecs of this process: {error}"
                    );
                }
                let ended = shutdown.wait_for(Option::is_some);
                // OK to ignore: both outcomes are reasons to look again.
                let _ = timeout(self.config.every(), ended).await;
            }
            if let Some(writer) = writer {
                self.leave(&writer).await;
            }
        })
    }

    async fn publish(&mut self, server: &Server, writer: &mut Option<Writer>) -> Result<(), String> {
        let tables = server.tables.load_full();
        let tables: Vec<&ServedTable> = (*tables).iter().flatten().map(|(_, table)| &**table).collect();
        let writer = match writer {
            Some(writer) => writer,
            None => writer.insert(self.open_writer().await.map_err(|error| error.to_string())?),
        };
        let mut current = BTreeSet::new();
        for table in tables {
            let key = format!("{}/{}/{}", self.host, std::process::id(), table.name);
            let codecs = table.codecs();
            let status = table.table.status();
            let stats = table.table.stats();
            let entry = FleetEntry {
                host: &self.host,
                process: std::process::id(),
                table: &table.name,
                topic: table.source.topic(),
                codecs: CodecsJson::new(&codecs),
                ktables: env!("CARGO_PKG_VERSION"),
                status: status.name(),
                reason: status.reason(),
                rejected: stats.rejects.values().sum(),
            };
            let write = timeout(WRITE_TIMEOUT, writer.set_json(key.clone(), &entry));
            write
                .await
                .map_err(|_| "the write took too long".to_owned())?
                .map_err(|error| error.to_string())?;
            current.insert(key);
        }
        // Tables that were removed by a reload.
        for key in self.published.difference(&current) {
            let delete = timeout(WRITE_TIMEOUT, writer.delete(key.clone()));
            delete
                .await
                .map_err(|_| "the write took too long".to_owned())?
                .map_err(|error| error.to_string())?;
        }
        self.published = current;
        Ok(())
    }

    async fn open_writer(&self) -> Result<Writer, LogError> {
        let options = EnsureTopic { new: NewTopic::default(), on_policy_mismatch: OnPolicyMismatch::Warn };
        let open = async {
            ensure_topic(&*self.log, &self.config.topic, &options).await?;
            Writer::open(self.log.clone(), &self.config.topic, Codecs::default()).await
        };
        let late = |_| Err(LogError::Closed);
        timeout(WRITE_TIMEOUT, open).await.unwrap_or_else(late)
    }

    /// Deletes the entries.
    async fn leave(&mut self, writer: &Writer) {
        for key in std::mem::take(&mut self.published) {
            if let Err(error) = writer.delete(key).await {
                tracing::warn!(
                    topic = self.config.topic,
                    "cannot delete what this process published: {error}"
                );
                return;
            }
        }
    }
}
