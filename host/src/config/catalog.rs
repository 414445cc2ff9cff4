//! Opens what a configuration names: each log, the engine, and each component once, shared by all tables.

mod codecs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use crate::codec::Codecs;
use crate::config::artifacts::Artifacts;
use crate::config::schema_table::SchemaTable;
use crate::config::sections::{DEFAULT_KEY_CODEC, DEFAULT_VALUE_CODEC};
use crate::config::table_source::{RequestedCodecs, TableSource, TableToServe};
use crate::config::{ComponentLocation, Config, ConfigError, TableCodec, TableConfig, find_nearest};
use crate::log::{self, Log};
use crate::oci::RevocationLists;
use crate::registry::CachedRegistry;
use crate::set_process_memory_limit;
use crate::sync::lock;
use crate::wasm::{Component, Engine, EngineOptions, Limits, Usage};

/// The names of the built-in codecs.
const BUILT_IN: [&str; 3] = ["utf8", "bytes", "json"];

/// The name of the built-in group scheme.
const LENGTH_PREFIXED: &str = "length-prefixed";

/// Whether this is the name of a built-in codec or group scheme.
pub(crate) fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(&name) || name == LENGTH_PREFIXED
}

/// What a component was loaded from, the required digest, and its limits.
type ComponentSource = (ComponentLocation, Option<String>, Limits);

/// Opens the logs, codecs and tables of a configuration. A process has one catalog.
#[derive(Debug)]
pub(crate) struct Catalog {
    config: Config,
    /// The file of the configuration; `None` if there is no file.
    path: Option<PathBuf>,
    engine_options: EngineOptions,
    engine: OnceLock<Engine>,
    /// A std lock: held while the engine is created, so that there is one.
    creating_engine: Mutex<()>,
    /// The opened logs, by name. A std lock: held while a log is opened, which does not wait for a broker.
    logs: Mutex<BTreeMap<String, Arc<dyn Log>>>,
    /// The opened schema registries, by name. A std lock: held while one is opened, which does not wait for it.
    registries: Mutex<BTreeMap<String, Arc<CachedRegistry>>>,
    /// The opened tables of schemas, by name. A std lock: held for a lookup.
    schema_tables: Mutex<BTreeMap<String, Arc<SchemaTable>>>,
    /// A std lock: held while a component is loaded.
    components: Mutex<Vec<(ComponentSource, Component)>>,
    artifacts: Artifacts,
}

/// The names of codecs; `None` for one that stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CodecNames {
    pub(crate) key: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) group: Option<String>,
}

impl Catalog {
    /// Creates a catalog, and sets the memory limits of the process and of its components if the configuration has
    /// some. `path` is the file of the configuration, for errors.
    pub(crate) fn new(
        config: Config,
        path: Option<&Path>,
        mut engine_options: EngineOptions,
    ) -> Result<Self, ConfigError> {
        if let Some(bytes) = config.limits.memory {
            set_process_memory_limit(bytes as u64);
        }
        if let Some(bytes) = config.limits.component_memory {
            engine_options.memory_budget = bytes;
        }
        let artifacts = Artifacts::new(&config, engine_options.cache.as_deref(), None);
        let catalog = Self {
            config,
            artifacts,
            path: path.map(Path::to_owned),
            engine_options,
            engine: OnceLock::new(),
            creating_engine: Mutex::default(),
            logs: Mutex::default(),
            registries: Mutex::default(),
            schema_tables: Mutex::default(),
            components: Mutex::default(),
        };
        match catalog.config.codecs.keys().find(|name| is_built_in(name)) {
            Some(name) => Err(catalog.invalid(&format!(
                "`{name}` is the name of a built-in codec: choose another name for this one"
            ))),
            None => Ok(catalog),
        }
    }

    /// Creates the catalog of another configuration. It shares the engine, and the logs, schema registries and
    /// tables of schemas whose sections are the same, and reads the files of components again.
    pub(crate) fn successor(&self, config: Config) -> Result<Self, ConfigError> {
        let mut logs = lock(&self.logs).clone();
        logs.retain(|name, _| {
            config.logs.get(name).is_some_and(|log| self.config.logs.get(name) == Some(log))
        });
        let mut registries = lock(&self.registries).clone();
        // What they have of the registry stays, and no table is loaded again.
        registries.retain(|name, registry| {
            let section = config.schema_registries.get(name);
            section.is_some_and(|section| registry.is_same(&section.options()))
        });
        let mut schema_tables = lock(&self.schema_tables).clone();
        schema_tables.retain(|name, _| {
            let table = config.tables.get(name);
            table.is_some_and(|table| {
                self.config.tables.get(name) == Some(table) && logs.contains_key(&table.log)
            })
        });
        let successor = Self::new(config, self.path.as_deref(), self.engine_options.clone())?;
        if let Some(engine) = self.engine.get() {
            // OK to ignore: the successor has no engine yet.
            let _ = successor.engine.set(engine.clone());
        }
        *lock(&successor.logs) = logs;
        *lock(&successor.registries) = registries;
        *lock(&successor.schema_tables) = schema_tables;
        Ok(successor)
    }

    /// Uses the sections of schema registries from now on: the registries that this catalog shares with the one before have
    /// the options of that one.
    pub(crate) fn apply_registry_options(&self) {
        for (name, registry) in &*lock(&self.registries) {
            if let Some(section) = self.config.schema_registries.get(name)
                && let Err(error) = registry.change(section.options())
            {
                tracing::warn!("schema_registries.{name}: {error}");
            }
        }
    }

    /// Whether the section of a log is the same in another configuration.
    pub(crate) fn has_same_log(&self, other: &Self, table: &TableConfig) -> bool {
        self.config.logs.get(&table.log) == other.config.logs.get(&table.log)
    }

    /// Opens the log of a table, and loads its codecs. Blocks while components are compiled.
    pub(crate) fn open_table(&self, name: &str) -> Result<TableSource, ConfigError> {
        let table = self.table(name)?;
        self.open_source(table, self.load_codecs(name, table)?)
    }

    /// Opens the log of a table that will be served, and loads its codecs. One that cannot be loaded is no error. Blocks
    /// while components are compiled.
    pub(crate) fn open_served_table(&self, name: &str) -> Result<TableToServe, ConfigError> {
        let table = self.table(name)?;
        let requested = self.requested_codecs(table);
        let (codecs, codec_error) = match self.load_codecs(name, table) {
            Ok(codecs) => (codecs, None),
            Err(error @ (ConfigError::Component(_) | ConfigError::Artifact(_))) => {
                (Codecs::default(), Some(error))
            }
            Err(error) => return Err(error),
        };
        Ok(TableToServe { source: self.open_source(table, codecs)?, requested, codec_error })
    }

    /// Returns the section of a table, and what it asks for as codecs.
    pub(crate) fn request(&self, name: &str) -> Option<(&TableConfig, RequestedCodecs)> {
        let table = self.config.tables.get(name)?;
        Some((table, self.requested_codecs(table)))
    }

    fn table(&self, name: &str) -> Result<&TableConfig, ConfigError> {
        self.check_usable("tables", name)?;
        let table = self.config.tables.get(name);
        table.ok_or_else(|| self.unknown("table", name, self.config.tables.keys().map(String::as_str)))
    }

    fn open_source(&self, table: &TableConfig, codecs: Codecs) -> Result<TableSource, ConfigError> {
        let ensure = table.ensure_options().map_err(|reason| self.invalid(&reason))?;
        let dead_letter = table.dead_letter_options().map_err(|reason| self.invalid(&reason))?;
        let dead_letter = dead_letter.map(|(topic, on_error)| (topic.to_owned(), on_error));
        Ok(TableSource {
            log: self.open_log(&table.log)?,
            codecs,
            ensure,
            dead_letter,
            key_component: self.component_settings(table.key_codec.as_ref()),
            value_component: self.component_settings(table.value_codec.as_ref()),
            config: table.clone(),
        })
    }

    /// Opens all logs and loads all components, also those that no table uses. Returns why some of them cannot be used.
    pub(crate) fn check_members(&self) -> Vec<String> {
        let logs = self.config.logs.keys().map(|name| (format!("logs.{name}"), self.open_log(name).err()));
        let codecs = self.config.codecs.keys().map(|name| {
            let codec = TableCodec::Named(name.clone());
            (format!("codecs.{name}"), self.load_component(None, &codec, &[]).err())
        });
        let describe = |(place, error): (String, Option<ConfigError>)| match error? {
            // It names the codec itself.
            error @ ConfigError::Artifact(_) => Some(error.to_string()),
            error => Some(format!("{place}: {error}")),
        };
        logs.chain(codecs).filter_map(describe).collect()
    }

    /// Opens the log that `[fleet]` names.
    pub(crate) fn open_fleet_log(&self, name: &str) -> Result<Arc<dyn Log>, ConfigError> {
        self.open_log(name)
    }

    fn open_log(&self, name: &str) -> Result<Arc<dyn Log>, ConfigError> {
        self.check_usable("logs", name)?;
        let Some(config) = self.config.logs.get(name) else {
            return Err(self.unknown("log", name, self.config.logs.keys().map(String::as_str)));
        };
        let mut logs = lock(&self.logs);
        if let Some(log) = logs.get(name) {
            return Ok(log.clone());
        }
        let log = log::open_with(&config.url, config.options())?;
        logs.insert(name.to_owned(), log.clone());
        Ok(log)
    }

    /// Opens a table of schemas, without loading it. All codecs share it.
    fn open_schema_table(&self, name: &str) -> Result<Arc<SchemaTable>, ConfigError> {
        if let Some(table) = lock(&self.schema_tables).get(name) {
            return Ok(table.clone());
        }
        if let Some(table) = self.config.tables.get(name) {
            let is = |codec: &Option<TableCodec>, name: &str| {
                codec.as_ref().is_none_or(|codec| *codec == TableCodec::Named(name.to_owned()))
            };
            let fits = is(&table.key_codec, DEFAULT_KEY_CODEC) && is(&table.value_codec, DEFAULT_VALUE_CODEC);
            if !fits || table.group_scheme.is_some() {
                return Err(self.invalid(&format!(
                    "tables.{name}: a table of schemas has keys in utf8 and values in json: leave key_codec, value_codec \
                     and group_scheme out"
                )));
            }
        }
        let table = Arc::new(SchemaTable::new(name, self.open_table(name)?));
        Ok(lock(&self.schema_tables).entry(name.to_owned()).or_insert(table).clone())
    }

    /// Opens a schema registry, without asking it. All codecs share it.
    fn open_registry(&self, name: &str) -> Result<Arc<CachedRegistry>, ConfigError> {
        self.check_usable("schema_registries", name)?;
        let Some(config) = self.config.schema_registries.get(name) else {
            let known = self.config.schema_registries.keys().map(String::as_str);
            return Err(self.unknown("schema registry", name, known));
        };
        let mut registries = lock(&self.registries);
        if let Some(registry) = registries.get(name) {
            return Ok(registry.clone());
        }
        let registry = CachedRegistry::new(config.options(), self.engine_options.cache.as_deref())
            .map_err(|error| self.invalid(&format!("the schema registry {name}: {error}")))?;
        let registry = Arc::new(registry);
        registries.insert(name.to_owned(), registry.clone());
        Ok(registry)
    }

    /// Reads the lists of revocations. Blocks.
    pub(crate) fn read_revocations(&self) -> Result<RevocationLists, ConfigError> {
        self.artifacts.read_revocations().map_err(ConfigError::Artifact)
    }

    /// Whether a list of revocations is fetched from a registry.
    pub(crate) fn has_remote_revocations(&self) -> bool {
        self.artifacts.has_remote_revocations()
    }

    /// Returns what the instances of the component with this digest have done; `None` if it was never loaded.
    pub(crate) fn usage(&self, digest: &str) -> Option<Usage> {
        self.engine.get()?.usage(digest)
    }

    /// Returns the engine, which is created on first use.
    fn engine(&self) -> Result<&Engine, ConfigError> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let _creating = lock(&self.creating_engine);
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = Engine::new(self.engine_options.clone())?;
        Ok(self.engine.get_or_init(|| engine))
    }

    /// Fails if the section `[kind.name]` needs an environment variable that is not set.
    fn check_usable(&self, kind: &'static str, name: &str) -> Result<(), ConfigError> {
        self.config.check_usable(kind, name).map_err(|reason| self.invalid(&reason))
    }

    fn unknown<'a>(&self, kind: &str, name: &str, known: impl Iterator<Item = &'a str>) -> ConfigError {
        let known: Vec<&str> = known.collect();
        let nearest = find_nearest(name, &known).map(|name| format!("; did you mean `{name}`?"));
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        self.invalid(&format!("there is no {kind} `{name}`{} (known: {known})", nearest.unwrap_or_default()))
    }

    fn invalid(&self, reason: &str) -> ConfigError {
        ConfigError::Invalid(match &self.path {
            Some(path) => format!("{}: {reason}", path.display()),
            None => reason.to_owned(),
        })
    }
}
