//! The tables that a server serves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use crate::codec::Codecs;
use crate::config::{ConfigError, RequestedCodecs, TableConfig, TableSource, TableToServe};
use crate::log::LogError;
use crate::serve::swaps::Swaps;
use crate::sync::lock;
use crate::table::{Status, Table, TableError};
use crate::writer::Writer;

/// Why nothing can be written to a table.
#[derive(Debug)]
pub(super) enum WriterError {
    /// The log does not permit it.
    Log(LogError),
    /// A codec cannot be loaded.
    Failed,
    /// A codec is revoked, and the policy does not let the table use it any more.
    Revoked(Arc<str>),
}

impl From<LogError> for WriterError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// All served tables, by name.
pub(super) type Tables = BTreeMap<String, Arc<ServedTable>>;

/// Returns the tables that keep the server from being ready.
pub(super) fn unready(tables: &Tables) -> impl Iterator<Item = &ServedTable> {
    tables.values().map(AsRef::as_ref).filter(|table| table.is_required && !table.is_ready())
}

/// A table, and everything that serving it takes.
#[derive(Debug)]
pub(super) struct ServedTable {
    pub(super) name: String,
    pub(super) source: TableSource,
    pub(super) table: Table,
    /// The codecs that are served. They differ from those of the configuration after a swap.
    codecs: ArcSwap<Codecs>,
    /// The codecs of the configuration.
    configured: ArcSwap<Codecs>,
    /// What the configuration asks for as its codecs.
    requested: ArcSwap<RequestedCodecs>,
    /// Why a codec could not be loaded. Then the table has failed, and its codecs are the default ones, which nothing uses.
    pub(super) codec_error: Option<ConfigError>,
    pub(super) swaps: Swaps,
    /// Whether the server is ready only once this table has been complete: not for one that a reload has added.
    pub(super) is_required: bool,
    /// The number of open watches.
    pub(super) watchers: AtomicUsize,
    /// A std lock: held to compare or replace it.
    last_warning: std::sync::Mutex<String>,
    /// The writer, once something was written. Held while it is opened, which asks the log for the topic.
    writer: Mutex<Option<Writer>>,
}

impl ServedTable {
    /// Opens a table, which then loads in the background, or has failed if a codec cannot be loaded.
    pub(super) async fn open(
        name: String,
        table: TableToServe,
        is_required: bool,
    ) -> Result<Self, TableError> {
        let TableToServe { source, requested, codec_error } = table;
        let table = match &codec_error {
            None => source.builder().open().await?,
            Some(error) => source.builder().open_without_codec(error.to_string()).await?,
        };
        let codecs = ArcSwap::from_pointee(source.codecs.clone());
        let configured = ArcSwap::from_pointee(source.codecs.clone());
        Ok(Self {
            name,
            source,
            table,
            codecs,
            configured,
            requested: ArcSwap::from_pointee(requested),
            codec_error,
            swaps: Swaps::default(),
            is_required,
            watchers: AtomicUsize::new(0),
            last_warning: std::sync::Mutex::default(),
            writer: Mutex::default(),
        })
    }

    /// Whether the table has been complete once, and has not failed since. A table that is degraded later stays ready: an
    /// outage of the log must not take the tables away when they are needed most.
    pub(super) fn is_ready(&self) -> bool {
        match self.table.status() {
            Status::CaughtUp => true,
            Status::Degraded(_) => self.table.stats().catch_up.is_some(),
            _ => false,
        }
    }

    /// The codecs that are served.
    pub(super) fn codecs(&self) -> Codecs {
        Codecs::clone(&self.codecs.load())
    }

    /// Whether the codecs that are served are those of the configuration.
    pub(super) fn has_configured_codecs(&self) -> bool {
        self.codecs.load().fingerprint() == self.configured.load().fingerprint()
    }

    /// Whether another configuration asks for the same table, also as far as its codecs are concerned.
    pub(super) fn is_same(&self, config: &TableConfig, requested: &RequestedCodecs) -> bool {
        config.has_other_codecs_only(self.source.config())
            && self.requested.load().iter().zip(requested).all(|(ours, other)| ours.is_still(other))
    }

    /// Sets the codecs of the configuration, which was reloaded.
    pub(super) fn set_configured(&self, codecs: Codecs, requested: RequestedCodecs) {
        self.requested.store(Arc::new(requested));
        if self.codecs.load().fingerprint() == codecs.fingerprint() {
            // The same components may have come from elsewhere.
            self.codecs.store(Arc::new(codecs.clone()));
        }
        self.configured.store(Arc::new(codecs));
    }

    /// Logs a warning, unless it was the last one.
    pub(super) fn warn_once(&self, text: &str) {
        let mut last = lock(&self.last_warning);
        if *last != text {
            tracing::warn!(table = self.name, "{text}");
            text.clone_into(&mut last);
        }
    }

    /// Uses other codecs from now on, also for writing.
    pub(super) async fn set_codecs(&self, codecs: Codecs) {
        let mut writer = self.writer.lock().await;
        self.codecs.store(Arc::new(codecs));
        *writer = None;
    }

    /// Returns the writer of the topic, which is opened on first use.
    pub(super) async fn writer(&self) -> Result<Writer, WriterError> {
        if self.codec_error.is_some() {
            return Err(WriterError::Failed);
        }
        let mut writer = self.writer.lock().await;
        // Of the codecs that a writer would use: a swap may just have replaced those that are served.
        if let Some(reason) = self.table.freeze_reason(|| self.codecs().fingerprint()) {
            return Err(WriterError::Revoked(reason));
        }
        if let Some(writer) = &*writer {
            return Ok(writer.clone());
        }
        let codecs = self.codecs();
        let opened = Writer::open(self.source.log.clone(), self.source.topic(), codecs).await?;
        let opened = opened.verify(self.source.verify());
        *writer = Some(opened.clone());
        Ok(opened)
    }
}
