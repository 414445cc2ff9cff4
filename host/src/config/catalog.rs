//! Opens what a configuration names: each log, the engine, and each component once, shared by all tables.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use crate::codec::{
    Bytes, Codecs, ComponentOrigin, GroupScheme, Json, KeyCodec, LengthPrefixed, Utf8, ValueCodec,
};
use crate::config::artifacts::{ArtifactRequest, Artifacts, LoadedArtifact};
use crate::config::schema_table::SchemaTable;
use crate::config::sections::{DEFAULT_KEY_CODEC, DEFAULT_VALUE_CODEC, SchemaTableName};
use crate::config::table_source::{ComponentSettings, TableSource};
use crate::config::{
    BUNDLED, CodecConfig, ComponentLocation, Config, ConfigError, SchemasFrom, TableCodec, TableConfig,
    find_nearest,
};
use crate::escape::escape_name;
use crate::log::{self, Log};
use crate::oci::{OciError, RevocationLists};
use crate::registry::{CachedRegistry, CodecRegistry, SchemaSource};
use crate::set_process_memory_limit;
use crate::sync::lock;
use crate::wasm::{Component, Engine, EngineOptions, Limits, LoadOptions, Usage, digest_of};

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
        let artifacts = Artifacts::new(&config, path, engine_options.cache.as_deref(), false);
        let catalog = Self {
            config,
            artifacts,
            path: path.map(Path::to_owned),
            engine_options,
            engine: OnceLock::new(),
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
        self.check_usable("tables", name)?;
        let Some(table) = self.config.tables.get(name) else {
            return Err(self.unknown("table", name, self.config.tables.keys().map(String::as_str)));
        };
        let ensure = table.ensure_options().map_err(|reason| self.invalid(&reason))?;
        let dead_letter = table.dead_letter_options().map_err(|reason| self.invalid(&reason))?;
        let dead_letter = dead_letter.map(|(topic, on_error)| (topic.to_owned(), on_error));
        let codecs = self.load_codecs(name, table)?;
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

    /// Loads the codecs of a table with other ones in place of those that are named here. A name is that of a built-in
    /// codec, or of a section `[codecs.NAME]`, never a file.
    pub(crate) fn load_other_codecs(&self, name: &str, names: &CodecNames) -> Result<Codecs, ConfigError> {
        let Some(table) = self.config.tables.get(name) else {
            return Err(self.unknown("table", name, self.config.tables.keys().map(String::as_str)));
        };
        let other = |name: &Option<String>, before: &Option<TableCodec>| {
            name.clone().map(TableCodec::Named).or_else(|| before.clone())
        };
        let table = TableConfig {
            key_codec: other(&names.key, &table.key_codec),
            value_codec: other(&names.value, &table.value_codec),
            group_scheme: other(&names.group, &table.group_scheme),
            ..table.clone()
        };
        self.load_codecs(name, &table)
    }

    /// Loads a component from its bytes, to run in a table with these settings, or with the defaults. Blocks while it is
    /// compiled.
    pub(crate) fn load_bytes(
        &self,
        table: &str,
        name: &str,
        bytes: Vec<u8>,
        settings: Option<&ComponentSettings>,
    ) -> Result<Component, ConfigError> {
        let limits = settings.map(|settings| settings.limits.clone()).unwrap_or_default();
        let what = format!("the component {}", escape_name(name));
        self.artifacts
            .check_bytes(&what, &bytes, Some(table), &limits)
            .map_err(|error| self.artifact_error(None, error))?;
        let origin = Some(Arc::new(ComponentOrigin::new(name, "upload")));
        let component =
            self.engine()?.load_bytes(name, bytes, LoadOptions { digest: None, limits, origin })?;
        let schemas = settings.and_then(|settings| settings.schemas.as_ref());
        self.with_schemas(component, schemas.map(|(schemas, register)| (schemas, *register)))
    }

    fn load_codecs(&self, name: &str, table: &TableConfig) -> Result<Codecs, ConfigError> {
        let topic = &table.topic;
        let built_in: [Arc<dyn KeyCodec>; 3] = [Arc::new(Utf8), Arc::new(Bytes), Arc::new(Json)];
        let key = match find_built_in(table.key_codec.as_ref(), DEFAULT_KEY_CODEC, built_in) {
            Ok(codec) => codec,
            Err(codec) => {
                let (component, config) = self.load_component(Some(name), codec, &BUILT_IN)?;
                component.key_codec(topic, &config)?
            }
        };
        let built_in: [Arc<dyn ValueCodec>; 3] = [Arc::new(Utf8), Arc::new(Bytes), Arc::new(Json)];
        let value = match find_built_in(table.value_codec.as_ref(), DEFAULT_VALUE_CODEC, built_in) {
            Ok(codec) => codec,
            Err(codec) => {
                let (component, config) = self.load_component(Some(name), codec, &BUILT_IN)?;
                component.value_codec(topic, &config)?
            }
        };
        let group_scheme: Option<Arc<dyn GroupScheme>> = match &table.group_scheme {
            None => None,
            Some(TableCodec::Named(name)) if name == LENGTH_PREFIXED => Some(Arc::new(LengthPrefixed)),
            Some(codec) => {
                let (component, config) = self.load_component(Some(name), codec, &[LENGTH_PREFIXED])?;
                Some(component.group_scheme(topic, &config)?)
            }
        };
        Ok(Codecs { key, value, group_scheme })
    }

    /// Loads a component. Returns it with its configuration as JSON. If its name is unknown, the error lists
    /// the known names, `built_in_names` among them.
    fn load_component(
        &self,
        table: Option<&str>,
        codec: &TableCodec,
        built_in_names: &[&str],
    ) -> Result<(Component, String), ConfigError> {
        let section = match codec {
            TableCodec::Component(section) => Cow::Borrowed(&**section),
            TableCodec::Named(name) => {
                self.check_usable("codecs", name)?;
                self.config.codec(name).ok_or_else(|| {
                    let known = self.config.codecs.keys().map(String::as_str);
                    let known: BTreeSet<&str> = known.chain(BUNDLED).collect();
                    self.unknown("codec", name, known.into_iter().chain(built_in_names.iter().copied()))
                })?
            }
        };
        let schemas = section.schema_registry.as_ref().map(|schemas| (schemas, section.register));
        let component = self.with_schemas(self.load_location(table, name_of(codec), &section)?, schemas)?;
        Ok((component, section.config.clone().unwrap_or_else(|| "{}".to_owned())))
    }

    /// Gives a component its schemas, if it has some. The flag says whether it may add others.
    fn with_schemas(
        &self,
        component: Component,
        schemas: Option<(&SchemasFrom, bool)>,
    ) -> Result<Component, ConfigError> {
        let source: Arc<dyn SchemaSource> = match schemas {
            None => return Ok(component),
            Some((SchemasFrom::Registry(name), may_register)) => {
                Arc::new(CodecRegistry::new(self.open_registry(name)?, may_register))
            }
            Some((SchemasFrom::Table(SchemaTableName { table }), false)) => self.open_schema_table(table)?,
            Some((SchemasFrom::Table(SchemaTableName { table }), true)) => {
                return Err(self.invalid(&format!(
                    "a codec cannot add schemas to the table {table}: remove register = true, and write to the table"
                )));
            }
        };
        Ok(component.with_schema_source(source))
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

    /// Loads a component from where it is, once for all codecs with the same limits. The policies are asked each time.
    fn load_location(
        &self,
        table: Option<&str>,
        name: Option<&str>,
        section: &CodecConfig,
    ) -> Result<Component, ConfigError> {
        let CodecConfig { component: location, digest, limits, .. } = section;
        let limits = limits.limits();
        let source = (location.clone(), digest.clone(), limits.clone());
        let request = ArtifactRequest { codec: name, digest: digest.as_deref(), table, limits: &limits };
        // Before the lock, because a registry may be slow.
        let loaded = self.artifacts.load(location, request);
        let LoadedArtifact { bytes, name, origin } =
            loaded.map_err(|error| self.artifact_error(name, error))?;
        let mut components = lock(&self.components);
        let known = components.iter().find(|(known, _)| *known == source).map(|(_, component)| component);
        if let Some(component) = known.filter(|component| component.id().digest == digest_of(&bytes)) {
            return Ok(component.clone());
        }
        let options = LoadOptions { digest: digest.clone(), limits, origin: Some(Arc::new(origin)) };
        let component = self.engine()?.load_bytes(&name, bytes, options)?;
        components.retain(|(known, _)| *known != source);
        components.push((source, component.clone()));
        Ok(component)
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

    /// Returns how a codec of a table runs, which `select` selects; `None` if it is built in.
    pub(crate) fn settings_of(
        &self,
        table: &str,
        select: impl Fn(&TableConfig) -> Option<&TableCodec>,
    ) -> Option<ComponentSettings> {
        self.component_settings(select(self.config.tables.get(table)?))
    }

    /// Returns how a codec runs; `None` if it is built in.
    fn component_settings(&self, codec: Option<&TableCodec>) -> Option<ComponentSettings> {
        let section = match codec? {
            TableCodec::Component(section) => Cow::Borrowed(&**section),
            TableCodec::Named(name) => self.config.codec(name)?,
        };
        let config = section.config.clone().unwrap_or_else(|| "{}".to_owned());
        let schemas = section.schema_registry.clone().map(|schemas| (schemas, section.register));
        Some(ComponentSettings { config, limits: section.limits.limits(), schemas })
    }

    /// Returns the engine, which is created on first use.
    fn engine(&self) -> Result<&Engine, ConfigError> {
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

    /// The error of a codec that cannot be loaded from where it is.
    fn artifact_error(&self, codec: Option<&str>, error: OciError) -> ConfigError {
        ConfigError::Artifact(match codec {
            Some(name) => error.about(&format!("codecs.{name}")),
            None => error,
        })
    }

    fn invalid(&self, reason: &str) -> ConfigError {
        ConfigError::Invalid(match &self.path {
            Some(path) => format!("{}: {reason}", path.display()),
            None => reason.to_owned(),
        })
    }
}

/// Returns the name of the section of a codec; `None` if it has none.
fn name_of(codec: &TableCodec) -> Option<&str> {
    match codec {
        TableCodec::Named(name) => Some(name),
        TableCodec::Component(_) => None,
    }
}

/// Returns the built-in codec that a table uses. `Err` is not a failure: it is the table's codec, which is a
/// component. `built_in` has the codecs that [`BUILT_IN`] names, in this order.
fn find_built_in<'a, T: ?Sized>(
    codec: Option<&'a TableCodec>,
    default: &str,
    built_in: [Arc<T>; BUILT_IN.len()],
) -> Result<Arc<T>, &'a TableCodec> {
    let name = match codec {
        None => default,
        Some(TableCodec::Named(name)) => name,
        Some(component) => return Err(component),
    };
    let found =
        BUILT_IN.into_iter().zip(built_in).find_map(|(known, codec)| (known == name).then_some(codec));
    // OK because every default is the name of a built-in codec.
    found.ok_or_else(|| codec.expect("a codec that is not the default"))
}
