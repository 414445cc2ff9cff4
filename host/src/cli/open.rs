//! Opens the tables and writers that arguments name.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::args::TableArgs;
use crate::cli::limits::parse_limits;
use crate::cli::{CliError, StopRequests, codec, logs, progress, schema};
use crate::codec::workers::{self, Lane, Purpose};
use crate::codec::{CheckedCodecs, CodecFailure, Codecs};
use crate::config::{
    self, Catalog, CodecConfig, ComponentSettings, Config, LimitsConfig, LogConfig, RegistryConfig,
    SchemasFrom, TableCodec, TableConfig, TableSource,
};
use crate::log::{Ack, Log, ensure_topic, with_timeout};
use crate::oci::Reference;
use crate::table::{Freshness, RecordPart, RetryOptions, Table};
use crate::writer::{Verify, WriteError, Writer};

/// How long resolving a table may take before a message says why it may take long.
const COMPILE_NOTICE_DELAY: Duration = Duration::from_secs(1);

/// The table that arguments name, with its log and its codecs.
pub(super) struct ResolvedTable {
    source: TableSource,
    catchup_timeout: Duration,
}

impl ResolvedTable {
    /// Resolves the arguments, and loads their codecs.
    pub(super) async fn resolve(args: TableArgs) -> Result<Self, CliError> {
        if args.server.server.is_some() {
            return Err(CliError::Usage(
                "this command reads and writes topics itself, so it takes no --server: name a log and a topic, or a \
                 configuration"
                    .to_owned(),
            ));
        }
        // Compiling a component blocks.
        let mut resolved = tokio::task::spawn_blocking(move || Self::resolve_blocking(&args));
        if let Ok(resolved) = tokio::time::timeout(COMPILE_NOTICE_DELAY, &mut resolved).await {
            return resolved?;
        }
        tracing::warn!(
            "loading the codecs takes long: a component is fetched, if it is in a registry, and compiled before its first use, and \
             then kept"
        );
        resolved.await?
    }

    fn resolve_blocking(args: &TableArgs) -> Result<Self, CliError> {
        let (mut config, path, name) = match (&args.log, &args.topic, &args.table) {
            (Some(url), Some(topic), None) => {
                let mut config = Config::default();
                config.logs.insert(url.clone(), LogConfig::new(url));
                config.tables.insert(topic.clone(), TableConfig::new(url, topic));
                (config, None, topic)
            }
            (None, None, Some(name)) => {
                let path = args.config.as_deref().unwrap_or(Path::new("ktables.toml"));
                (Config::read(path)?, Some(path), name)
            }
            _ => {
                return Err(CliError::Usage(
                    "which table? Name a table of a configuration (--config ktables.toml -t NAME), a log and a topic \
                     (--log kafka://HOST:PORT --topic TOPIC), or a table of a server (--server URL -t NAME)"
                        .to_owned(),
                ));
            }
        };
        override_table(&mut config, name, args)?;
        let source = Catalog::new(config, path, codec::engine_options())?.open_table(name)?;
        Ok(Self { source, catchup_timeout: args.catchup_timeout })
    }

    pub(super) fn log(&self) -> &Arc<dyn Log> {
        &self.source.log
    }

    /// Returns the codecs.
    pub(super) fn codecs(&self) -> &Codecs {
        &self.source.codecs
    }

    /// Returns the name of the topic.
    pub(super) fn topic(&self) -> &str {
        self.source.topic()
    }

    /// Returns how dead letters are tried again; `None` if the table has no dead-letter topic.
    pub(super) fn retry_options(&self, force: bool, stop_requests: StopRequests) -> Option<RetryOptions> {
        let (dead_letter, _) = self.source.dead_letter.clone()?;
        let (log, codecs) = (self.source.log.clone(), self.source.codecs.clone());
        Some(RetryOptions { log, topic: self.topic().to_owned(), dead_letter, codecs, force, stop_requests })
    }

    /// Returns how the codec of a part of records runs; `None` if it is built in.
    pub(super) fn component_settings(&self, part: RecordPart) -> Option<&ComponentSettings> {
        match part {
            RecordPart::Key => self.source.key_component.as_ref(),
            RecordPart::Value => self.source.value_component.as_ref(),
        }
    }

    /// Opens the table, and waits until it is loaded or degraded. Shows its progress meanwhile.
    pub(super) async fn load(&self) -> Result<Table, CliError> {
        let table = self.source.builder().catchup_timeout(self.catchup_timeout).open().await?;
        // A degraded table has logged that it is degraded.
        if let Err(error) = progress::show_until(&table, table.wait_until_ready()).await {
            // Writes its dead letters.
            table.stop().await;
            return Err(error.into());
        }
        let stats = table.stats();
        let rejected = stats.rejects.values().sum::<u64>() + stats.keyless;
        if rejected > 0 {
            tracing::warn!(
                "{rejected} of {} records were rejected: `ktables rejects` lists the newest",
                stats.records
            );
        }
        Ok(table)
    }

    /// Joins a group and a member to a key. Returns `None`, and logs the reason, if the group scheme
    /// refuses them. Also returns `None`, without a message, if the table has no group scheme; callers check
    /// that first.
    pub(super) async fn join_key(&self, group: &str, member: &str) -> Result<Option<String>, CliError> {
        let (codecs, group, member) = (self.source.codecs.clone(), group.to_owned(), member.to_owned());
        let lane = Lane::new(&self.source.codecs, Purpose::Read);
        let join = move || CheckedCodecs(&codecs).join(&group, &member).map(CodecFailure::split).transpose();
        let reason = match workers::run_codecs(&lane, join).await? {
            Some(Ok(mut keys)) => match keys.pop() {
                Some(Ok(key)) => return Ok(Some(key.into())),
                Some(Err(reason)) => reason,
                // Not reached: there is one answer for each pair.
                None => return Ok(None),
            },
            Some(Err(fault)) => fault,
            None => return Ok(None),
        };
        tracing::error!("cannot join group and member to a key: {reason}");
        Ok(None)
    }

    /// Fails if the table has no group scheme.
    pub(super) fn require_groups(&self) -> Result<(), CliError> {
        if self.source.codecs.group_scheme.is_some() {
            return Ok(());
        }
        Err(CliError::Usage(
            "this table has no groups: set a group scheme (--group-scheme, or group_scheme in the \
             configuration)"
                .to_owned(),
        ))
    }

    /// Waits until a record is visible in the table.
    pub(super) async fn wait_until_visible(&self, table: &Table, ack: Ack) -> Result<(), CliError> {
        match table.wait_for(&[ack], self.catchup_timeout).await {
            Freshness::Stale(reason) => Err(WriteError::NotVisible { ack, reason: Box::new(reason) }.into()),
            Freshness::Fresh => Ok(()),
        }
    }

    /// Opens a writer to the topic.
    pub(super) async fn open_writer(&self, verify: Option<Verify>) -> Result<Writer, CliError> {
        let TableSource { log, codecs, ensure, .. } = &self.source;
        let topic = self.source.topic();
        let writer = with_timeout(&**log, topic, "describe", self.catchup_timeout, async {
            if let Some(options) = ensure {
                ensure_topic(&**log, topic, options).await?;
            }
            Writer::open(log.clone(), topic, codecs.clone()).await
        });
        Ok(writer.await?.verify(verify.unwrap_or(self.source.verify())))
    }
}

/// The name of the section for the address of a registry in the arguments.
const ARGUMENT_REGISTRY: &str = "--schema-registry";

/// Replaces settings of a table in the configuration by those of the arguments.
fn override_table(config: &mut Config, name: &str, args: &TableArgs) -> Result<(), CliError> {
    // An unknown table is reported when it is opened.
    let Some(mut table) = config.tables.get(name).cloned() else { return Ok(()) };
    if let Some(log) = config.logs.get_mut(&table.log) {
        logs::set_properties(log, &args.property)?;
    }
    table.on_reject = args.on_reject.or(table.on_reject);
    table.on_quarantine = args.on_quarantine.or(table.on_quarantine);
    table.dead_letter = args.dead_letter.clone().or(table.dead_letter);
    table.dead_letter_on_error = args.dead_letter_on_error.or(table.dead_letter_on_error);
    table.ttl = args.ttl.or(table.ttl);
    table.checkpoint = args.checkpoint.clone().or(table.checkpoint);
    table.checkpoint_max_age = args.checkpoint_max_age.or(table.checkpoint_max_age);
    let limits = parse_limits("--codec-limit", &args.codec_limit)?;
    let registry = add_registry(config, args)?;
    let mut is_all_built_in = true;
    for (option, codec, argument, json) in [
        ("--key-codec", &mut table.key_codec, &args.key_codec, &args.key_codec_config),
        ("--value-codec", &mut table.value_codec, &args.value_codec, &args.value_codec_config),
        ("--group-scheme", &mut table.group_scheme, &args.group_scheme, &args.group_scheme_config),
    ] {
        if let Some(name) = argument {
            *codec = Some(find_codec(config, name)?);
        }
        let component = codec.as_ref().and_then(|codec| find_component(config, codec)).map(Cow::into_owned);
        let is_built_in = codec.as_ref().is_none_or(is_built_in);
        is_all_built_in &= is_built_in;
        match (component, json) {
            (Some(component), json)
                if json.is_some() || registry.is_some() || limits != LimitsConfig::default() =>
            {
                let schema_registry = registry.clone().or_else(|| component.schema_registry.clone());
                let component = CodecConfig { schema_registry, ..component };
                let component = override_component(component, option, json.as_deref(), &limits)?;
                *codec = Some(TableCodec::Component(Box::new(component)));
            }
            (None, Some(_)) if is_built_in => {
                return Err(CliError::Usage(format!(
                    "{option}-config is only for components: name one with {option} FILE.wasm"
                )));
            }
            // An unknown codec is reported when it is loaded.
            _ => {}
        }
    }
    let for_components = [
        ("--codec-limit", limits != LimitsConfig::default()),
        ("--schema-registry", args.schema_registry.is_some()),
    ];
    if let Some((option, _)) = for_components.into_iter().find(|(_, is_set)| is_all_built_in && *is_set) {
        return Err(CliError::Usage(format!("{option} is only for components, and this table has none")));
    }
    config.tables.insert(name.to_owned(), table);
    Ok(())
}

/// Returns the schema registry that the arguments name, or the environment if there is no configuration. Adds a section for
/// an address.
fn add_registry(config: &mut Config, args: &TableArgs) -> Result<Option<SchemasFrom>, CliError> {
    // A configuration names its own.
    let variable = || schema::registry_variable().filter(|_| args.log.is_some());
    let Some(name) = args.schema_registry.clone().or_else(variable) else { return Ok(None) };
    if !schema::is_address(&name)? {
        return Ok(Some(SchemasFrom::Registry(name)));
    }
    config.schema_registries.insert(ARGUMENT_REGISTRY.to_owned(), RegistryConfig::new(&name));
    Ok(Some(SchemasFrom::Registry(ARGUMENT_REGISTRY.to_owned())))
}

/// Returns the codec that an argument names: one of the configuration, a built-in one, or a component file.
fn find_codec(config: &Config, name: &str) -> Result<TableCodec, CliError> {
    let file = Path::new(name);
    if config.codec(name).is_some() || config::is_built_in(name) {
        return Ok(TableCodec::Named(name.to_owned()));
    }
    if file.extension().is_some_and(|extension| extension == "wasm") || Reference::is_reference(name) {
        return Ok(TableCodec::Component(Box::new(CodecConfig::new(name.to_owned().into()))));
    }
    if file.is_file() {
        return Err(CliError::Usage(format!(
            "`{name}` is not a codec: the name of a component file must end with .wasm"
        )));
    }
    Ok(TableCodec::Named(name.to_owned()))
}

/// Returns the component of a codec, unless the codec is built in, unknown, or needs an environment variable
/// that is not set.
fn find_component<'a>(config: &'a Config, codec: &'a TableCodec) -> Option<Cow<'a, CodecConfig>> {
    match codec {
        TableCodec::Component(component) => Some(Cow::Borrowed(&**component)),
        TableCodec::Named(name) => config.codec(name).filter(|_| config.check_usable("codecs", name).is_ok()),
    }
}

fn is_built_in(codec: &TableCodec) -> bool {
    matches!(codec, TableCodec::Named(name) if config::is_built_in(name))
}

/// Returns a component with the settings of the arguments.
fn override_component(
    component: CodecConfig,
    option: &str,
    json: Option<&str>,
    limits: &LimitsConfig,
) -> Result<CodecConfig, CliError> {
    if let Some(json) = json {
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json)
            .map_err(|error| CliError::Usage(format!("{option}-config is not a JSON object: {error}")))?;
    }
    Ok(CodecConfig {
        config: json.map(str::to_owned).or(component.config),
        limits: limits.clone().or(&component.limits),
        ..component
    })
}
