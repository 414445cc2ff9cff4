//! A topic with everything that is needed to read and write it.

use std::sync::Arc;

use crate::codec::Codecs;
use crate::config::error::ConfigError;
use crate::config::sections::{CodecConfig, SchemasFrom, TableCodec, TableConfig};
use crate::log::{EnsureTopic, Log};
use crate::oci::Digest;
use crate::table::{DeadLetterOnError, Table, TableBuilder};
use crate::wasm::Limits;
use crate::writer::Verify;

/// A topic with everything that is needed to read and write it.
#[derive(Debug)]
pub(crate) struct TableSource {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) codecs: Codecs,
    /// Whether and how the topic is ensured before it is used.
    pub(crate) ensure: Option<EnsureTopic>,
    /// The dead-letter topic, and what happens when it cannot be written.
    pub(crate) dead_letter: Option<(String, DeadLetterOnError)>,
    /// How the codecs of keys and values run, if they are components.
    pub(crate) key_component: Option<ComponentSettings>,
    pub(crate) value_component: Option<ComponentSettings>,
    pub(super) config: TableConfig,
}

/// A table that will be served.
#[derive(Debug)]
pub(crate) struct TableToServe {
    /// If a codec cannot be loaded, the codecs are the default ones, and must not be used.
    pub(crate) source: TableSource,
    pub(crate) requested: RequestedCodecs,
    /// Why a codec cannot be loaded.
    pub(crate) codec_error: Option<ConfigError>,
}

/// What a configuration asks for as the codecs of keys, values and groups of a table, without the schemas that they use.
pub(crate) type RequestedCodecs = [RequestedCodec; 3];

/// What a configuration asks for as one codec.
#[derive(Debug, Clone)]
pub(crate) struct RequestedCodec {
    pub(super) codec: Option<TableCodec>,
    /// The section of its component, if it is one.
    pub(super) section: Option<CodecConfig>,
    /// The digest of the component file, or of the manifest that the reference or the lock file names.
    pub(super) digest: Option<Digest>,
}

impl RequestedCodec {
    /// Whether a later configuration asks for the same codec, as far as that is known: a file may be gone.
    pub(crate) fn is_still(&self, later: &Self) -> bool {
        self.codec == later.codec
            && self.section == later.section
            && (self.digest == later.digest || later.digest.is_none())
    }
}

/// How a component runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ComponentSettings {
    /// Its configuration, as JSON.
    pub(crate) config: String,
    pub(crate) limits: Limits,
    /// Where its schemas are, and whether it may add some.
    pub(super) schemas: Option<(SchemasFrom, bool)>,
}

impl TableSource {
    /// Returns the section of the table.
    pub(crate) fn config(&self) -> &TableConfig {
        &self.config
    }

    /// Returns the name of the topic.
    pub(crate) fn topic(&self) -> &str {
        &self.config.topic
    }

    /// Returns how writers verify what they write.
    pub(crate) fn verify(&self) -> Verify {
        self.config.verify.unwrap_or_default()
    }

    /// Returns a builder of the table.
    pub(crate) fn builder(&self) -> TableBuilder {
        let TableConfig { on_reject, on_quarantine, quarantine_faults, .. } = &self.config;
        let TableConfig { ttl, checkpoint, checkpoint_max_age, memory_limit, .. } = &self.config;
        let mut builder = Table::builder(self.log.clone(), self.topic(), self.codecs.clone())
            .on_reject(on_reject.unwrap_or_default())
            .on_quarantine(on_quarantine.unwrap_or_default());
        if let Some(records) = quarantine_faults {
            builder = builder.quarantine_faults(*records);
        }
        if let Some(options) = &self.ensure {
            builder = builder.ensure_topic(options.clone());
        }
        if let Some((topic, on_error)) = &self.dead_letter {
            builder = builder.dead_letter(topic, *on_error);
        }
        if let Some(ttl) = ttl {
            builder = builder.ttl(*ttl);
        }
        if let Some(folder) = checkpoint {
            builder = builder.checkpoint(folder);
        }
        if let Some(max_age) = checkpoint_max_age {
            builder = builder.checkpoint_max_age(*max_age);
        }
        if let Some(bytes) = memory_limit {
            builder = builder.memory_limit(*bytes as u64);
        }
        builder
    }
}
