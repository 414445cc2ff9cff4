//! Loads the codecs of tables: built-in ones, and each component once, shared by all tables.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::codec::{
    Bytes, Codecs, ComponentOrigin, GroupScheme, Json, KeyCodec, LengthPrefixed, Utf8, ValueCodec,
};
use crate::config::artifacts::{ArtifactRequest, LoadedArtifact};
use crate::config::catalog::{BUILT_IN, Catalog, CodecNames, LENGTH_PREFIXED};
use crate::config::sections::{DEFAULT_KEY_CODEC, DEFAULT_VALUE_CODEC, SchemaTableName};
use crate::config::table_source::{ComponentSettings, RequestedCodec, RequestedCodecs};
use crate::config::{
    BUNDLED, CodecConfig, ComponentLocation, ConfigError, SchemasFrom, TableCodec, TableConfig,
};
use crate::escape::escape_name;
use crate::oci::OciError;
use crate::registry::{CodecRegistry, SchemaSource};
use crate::sync::lock;
use crate::wasm::{Component, LoadOptions, digest_of};

impl Catalog {
    pub(super) fn load_codecs(&self, name: &str, table: &TableConfig) -> Result<Codecs, ConfigError> {
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

    /// Loads a component. Returns it with its configuration as JSON. If its name is unknown, the error lists
    /// the known names, `built_in_names` among them.
    pub(super) fn load_component(
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
        let loaded = match (location, self.engine.get()) {
            (ComponentLocation::Artifact(_), None) => self.load_beside_engine(location, request),
            _ => self.artifacts.load(location, request),
        };
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

    /// Loads an artifact, and creates the engine at the same time: a start takes some milliseconds for signatures, and some for
    /// the engine.
    fn load_beside_engine(
        &self,
        location: &ComponentLocation,
        request: ArtifactRequest<'_>,
    ) -> Result<LoadedArtifact, OciError> {
        std::thread::scope(|scope| {
            let create = || drop(self.engine());
            // OK to ignore: the engine is created later, or its error is returned then.
            let _ = std::thread::Builder::new().name("ktables-engine".to_owned()).spawn_scoped(scope, create);
            self.artifacts.load(location, request)
        })
    }

    /// Returns what the configuration asks for as the codecs of a table, without asking a registry.
    pub(super) fn requested_codecs(&self, table: &TableConfig) -> RequestedCodecs {
        [&table.key_codec, &table.value_codec, &table.group_scheme].map(|codec| {
            let section = codec.as_ref().and_then(|codec| self.section(codec));
            let name = codec.as_ref().and_then(name_of);
            let digest =
                section.as_ref().and_then(|section| self.artifacts.identify(&section.component, name));
            RequestedCodec { codec: codec.clone(), section: section.map(Cow::into_owned), digest }
        })
    }

    /// Returns the section of a codec; `None` if it is built in, or unknown.
    fn section<'a>(&'a self, codec: &'a TableCodec) -> Option<Cow<'a, CodecConfig>> {
        match codec {
            TableCodec::Component(section) => Some(Cow::Borrowed(&**section)),
            TableCodec::Named(name) => self.config.codec(name),
        }
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
    pub(super) fn component_settings(&self, codec: Option<&TableCodec>) -> Option<ComponentSettings> {
        let section = self.section(codec?)?;
        let config = section.config.clone().unwrap_or_else(|| "{}".to_owned());
        let schemas = section.schema_registry.clone().map(|schemas| (schemas, section.register));
        Some(ComponentSettings { config, limits: section.limits.limits(), schemas })
    }

    /// The error of a codec that cannot be loaded from where it is.
    fn artifact_error(&self, codec: Option<&str>, error: OciError) -> ConfigError {
        ConfigError::Artifact(match codec {
            Some(name) => error.about(&format!("codecs.{name}")),
            None => error,
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
