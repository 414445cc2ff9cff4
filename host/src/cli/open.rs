//! Resolves arguments and configuration, and opens tables and writers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::cli::args::{TableArgs, WaitArgs};
use crate::cli::config::{CodecConfig, Config, LimitsConfig, TableConfig, find_nearest};
use crate::cli::{CliError, codec, logs, progress};
use crate::codec::workers::{self, Lane, Purpose};
use crate::codec::{
    Bytes, CheckedCodecs, CodecFailure, Codecs, GroupScheme, Json, KeyCodec, LengthPrefixed, Utf8, ValueCodec,
};
use crate::log::{EnsureTopic, Log, LogOptions, ensure_topic, with_timeout};
use crate::set_process_limit;
use crate::table::{OnReject, Table};
use crate::wasm::{Component, Engine, LoadOptions};
use crate::writer::{Verify, Writer};

/// The names of the built-in codecs.
const BUILT_IN: [&str; 3] = ["utf8", "bytes", "json"];

/// The name of the built-in group scheme.
const LENGTH_PREFIXED: &str = "length-prefixed";

/// A topic with everything that is needed to read and write it: log, codecs and options.
pub(super) struct ResolvedTable {
    pub(super) log: Arc<dyn Log>,
    pub(super) topic: String,
    codecs: Codecs,
    verify: Verify,
    catchup_timeout: Duration,
    /// Whether and how the topic is ensured before it is used.
    ensure: Option<EnsureTopic>,
    on_reject: OnReject,
    ttl: Option<Duration>,
    checkpoint: Option<PathBuf>,
    checkpoint_max_age: Option<Duration>,
    memory_limit: Option<usize>,
}

/// Finds codecs by name: built-in ones, those of the configuration, and component files.
struct CodecResolver {
    codecs: std::collections::BTreeMap<String, CodecConfig>,
    /// The configuration of component files that are named in the arguments, as JSON.
    codec_config: String,
    engine: OnceLock<Engine>,
}

impl ResolvedTable {
    /// Resolves the arguments, and loads their codecs.
    pub(super) async fn resolve(args: TableArgs) -> Result<Self, CliError> {
        // Compiling a component blocks.
        tokio::task::spawn_blocking(move || Self::resolve_blocking(args)).await?
    }

    fn resolve_blocking(args: TableArgs) -> Result<Self, CliError> {
        let catchup_timeout = args.catchup_timeout;
        let (on_reject, ttl) = (args.on_reject, args.ttl);
        let (checkpoint, checkpoint_max_age) = (args.checkpoint.clone(), args.checkpoint_max_age);
        let (log, mut table, resolver) = match (&args.log, &args.topic, &args.table) {
            (Some(url), Some(topic), None) => table_from_args(&args, url, topic)?,
            (None, None, Some(name)) => table_from_config(&args, name)?,
            _ => {
                return Err(CliError::Usage(
                    "which table? Name a table of a configuration (--config ktables.toml -t NAME), or a log \
                     and a topic (--log kafka://HOST:PORT --topic TOPIC)"
                        .to_owned(),
                ));
            }
        };
        table.on_reject = on_reject.or(table.on_reject);
        table.ttl = ttl.or(table.ttl);
        table.checkpoint = checkpoint.or(table.checkpoint);
        table.checkpoint_max_age = checkpoint_max_age.or(table.checkpoint_max_age);
        let codecs = Codecs {
            key: resolver.resolve_key_codec(table.key_codec.as_deref().unwrap_or("utf8"), &table.topic)?,
            value: resolver
                .resolve_value_codec(table.value_codec.as_deref().unwrap_or("json"), &table.topic)?,
            scheme: table
                .group_scheme
                .as_deref()
                .map(|name| resolver.resolve_group_scheme(name, &table.topic))
                .transpose()?,
        };
        let verify = table.verify.unwrap_or_default();
        let log = logs::open(&log.0, log.1, &args.property)?;
        let ensure = table.ensure_options().map_err(CliError::Usage)?;
        Ok(Self {
            log,
            topic: table.topic,
            codecs,
            verify,
            catchup_timeout,
            ensure,
            on_reject: table.on_reject.unwrap_or_default(),
            ttl: table.ttl,
            checkpoint: table.checkpoint,
            checkpoint_max_age: table.checkpoint_max_age,
            memory_limit: table.memory_limit,
        })
    }

    /// Opens the table, and waits until it is loaded or degraded. Shows its progress meanwhile.
    pub(super) async fn load(&self) -> Result<Table, CliError> {
        let builder = Table::builder(self.log.clone(), &self.topic, self.codecs.clone())
            .catchup_timeout(self.catchup_timeout);
        let mut builder = builder.on_reject(self.on_reject);
        if let Some(options) = &self.ensure {
            builder = builder.ensure_topic(options.clone());
        }
        if let Some(ttl) = self.ttl {
            builder = builder.ttl(ttl);
        }
        if let Some(folder) = &self.checkpoint {
            builder = builder.checkpoint(folder);
        }
        if let Some(max_age) = self.checkpoint_max_age {
            builder = builder.checkpoint_max_age(max_age);
        }
        if let Some(bytes) = self.memory_limit {
            builder = builder.memory_limit(bytes as u64);
        }
        let table = builder.open().await?;
        // A degraded table has logged that it is degraded.
        progress::show_until(&table, table.ready()).await?;
        let stats = table.stats();
        let rejected: u64 = stats.rejects.values().sum();
        if rejected > 0 {
            tracing::warn!(
                "{rejected} of {} records were rejected: `ktables rejects` lists them",
                stats.records
            );
        }
        Ok(table)
    }

    /// Joins a group and a member to a key. Returns `None`, and logs the reason, if the group scheme
    /// refuses them.
    pub(super) async fn join_key(&self, group: &str, member: &str) -> Result<Option<String>, CliError> {
        let (codecs, group, member) = (self.codecs.clone(), group.to_owned(), member.to_owned());
        let lane = Lane::new(&self.codecs, Purpose::Read);
        let join = move || CheckedCodecs(&codecs).join(&group, &member);
        let reason = match workers::run(&lane, join).await? {
            Some(Ok(mut keys)) => match keys.pop() {
                Some(Ok(key)) => return Ok(Some(key.into())),
                Some(Err(reason)) => reason,
                None => return Ok(None),
            },
            Some(Err(CodecFailure::Host(failure))) => return Err(failure.into()),
            Some(Err(CodecFailure::Fault(fault))) => fault,
            None => return Ok(None),
        };
        tracing::error!("the group scheme does not join this group and member to a key: {reason}");
        Ok(None)
    }

    /// Fails if the table has no group scheme.
    pub(super) fn require_groups(&self) -> Result<(), CliError> {
        if self.codecs.scheme.is_some() {
            return Ok(());
        }
        Err(CliError::Usage(
            "this table has no groups: set a group scheme (--group-scheme, or group_scheme in the \
             configuration)"
                .to_owned(),
        ))
    }

    /// Opens a writer to the topic. With `--wait`, it loads the table, and writes return when they are
    /// visible in it.
    pub(super) async fn open_writer(
        &self,
        verify: Option<Verify>,
        wait: Option<WaitArgs>,
    ) -> Result<Writer, CliError> {
        let verify = verify.unwrap_or(self.verify);
        let writer = with_timeout(&*self.log, &self.topic, self.catchup_timeout, async {
            if let Some(options) = &self.ensure {
                ensure_topic(&*self.log, &self.topic, options).await?;
            }
            Writer::open(self.log.clone(), &self.topic, self.codecs.clone()).await
        });
        let writer = writer.await?.verify(verify);
        match wait {
            Some(WaitArgs { wait: true }) => Ok(writer.visible_in(&self.load().await?, self.catchup_timeout)),
            _ => Ok(writer),
        }
    }
}

/// Describes the table that the arguments name by its log and topic.
fn table_from_args(
    args: &TableArgs,
    url: &str,
    topic: &str,
) -> Result<((String, LogOptions), TableConfig, CodecResolver), CliError> {
    let codec_config = args.codec_config.clone().unwrap_or_else(|| "{}".to_owned());
    if let Err(error) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&codec_config) {
        return Err(CliError::Usage(format!("--codec-config is not a JSON object: {error}")));
    }
    let table = TableConfig {
        log: url.to_owned(),
        topic: topic.to_owned(),
        key_codec: args.key_codec.clone(),
        value_codec: args.value_codec.clone(),
        group_scheme: args.group_scheme.clone(),
        verify: None,
        ensure_topic: false,
        on_policy_mismatch: None,
        on_reject: None,
        ttl: None,
        checkpoint: None,
        checkpoint_max_age: None,
        memory_limit: None,
    };
    let resolver =
        CodecResolver { codecs: std::collections::BTreeMap::new(), codec_config, engine: OnceLock::new() };
    Ok(((url.to_owned(), LogOptions::default()), table, resolver))
}

/// Reads the description of a table from the configuration.
fn table_from_config(
    args: &TableArgs,
    name: &str,
) -> Result<((String, LogOptions), TableConfig, CodecResolver), CliError> {
    let path = args.config.as_deref().unwrap_or(Path::new("ktables.toml"));
    let mut config = Config::read(path)?;
    if let Some(bytes) = config.limits.memory {
        set_process_limit(bytes as u64);
    }
    let unknown_name = |kind: &str, name: &str, known: Vec<&str>| {
        let nearest =
            find_nearest(name, &known).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
        CliError::Usage(format!(
            "{}: there is no {kind} `{name}`{nearest} (known: {})",
            path.display(),
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        ))
    };
    let check_usable = |section: &'static str, name: &str| {
        let usage = |reason| CliError::Usage(format!("{}: {reason}", path.display()));
        config.check_usable(section, name).map_err(usage)
    };
    check_usable("tables", name)?;
    let names: Vec<&str> = config.tables.keys().map(String::as_str).collect();
    if !config.tables.contains_key(name) {
        return Err(unknown_name("table", name, names));
    }
    if let Some(name) =
        config.codecs.keys().find(|name| BUILT_IN.contains(&name.as_str()) || *name == LENGTH_PREFIXED)
    {
        return Err(CliError::Usage(format!(
            "{}: `{name}` is the name of a built-in codec: choose another name for this one",
            path.display()
        )));
    }
    // OK because the table was found above.
    let table = config.tables.get(name).expect("a table of this name");
    check_usable("logs", &table.log)?;
    for codec in [&table.key_codec, &table.value_codec, &table.group_scheme].into_iter().flatten() {
        check_usable("codecs", codec)?;
    }
    // OK because the table was found above.
    let table = config.tables.remove(name).expect("a table of this name");
    let log = match config.logs.get(&table.log) {
        Some(log) => (log.url.clone(), log.options()),
        None => {
            return Err(unknown_name("log", &table.log, config.logs.keys().map(String::as_str).collect()));
        }
    };
    let known: Vec<&str> = config.codecs.keys().map(String::as_str).collect();
    let key_and_value = [&table.key_codec, &table.value_codec].into_iter().flatten();
    for codec in key_and_value.filter(|codec| !BUILT_IN.contains(&codec.as_str())) {
        if !config.codecs.contains_key(codec) {
            return Err(unknown_name("codec", codec, known.into_iter().chain(BUILT_IN).collect()));
        }
    }
    if let Some(scheme) = table.group_scheme.as_ref().filter(|scheme| *scheme != LENGTH_PREFIXED)
        && !config.codecs.contains_key(scheme)
    {
        return Err(unknown_name("codec", scheme, known.into_iter().chain([LENGTH_PREFIXED]).collect()));
    }
    let resolver =
        CodecResolver { codecs: config.codecs, codec_config: "{}".to_owned(), engine: OnceLock::new() };
    Ok((log, table, resolver))
}

/// Returns the built-in codec of this name. The codecs are in the order of [`BUILT_IN`].
fn find_built_in<T: ?Sized>(name: &str, codecs: [Arc<T>; BUILT_IN.len()]) -> Option<Arc<T>> {
    BUILT_IN.into_iter().zip(codecs).find_map(|(known, codec)| (known == name).then_some(codec))
}

impl CodecResolver {
    fn resolve_key_codec(&self, name: &str, topic: &str) -> Result<Arc<dyn KeyCodec>, CliError> {
        if let Some(codec) =
            find_built_in::<dyn KeyCodec>(name, [Arc::new(Utf8), Arc::new(Bytes), Arc::new(Json)])
        {
            return Ok(codec);
        }
        let (component, config) = self.load_component(name, &BUILT_IN)?;
        Ok(component.key_codec(topic, &config)?)
    }

    fn resolve_value_codec(&self, name: &str, topic: &str) -> Result<Arc<dyn ValueCodec>, CliError> {
        if let Some(codec) =
            find_built_in::<dyn ValueCodec>(name, [Arc::new(Utf8), Arc::new(Bytes), Arc::new(Json)])
        {
            return Ok(codec);
        }
        let (component, config) = self.load_component(name, &BUILT_IN)?;
        Ok(component.value_codec(topic, &config)?)
    }

    fn resolve_group_scheme(&self, name: &str, topic: &str) -> Result<Arc<dyn GroupScheme>, CliError> {
        if name == LENGTH_PREFIXED {
            return Ok(Arc::new(LengthPrefixed));
        }
        let (component, config) = self.load_component(name, &[LENGTH_PREFIXED])?;
        Ok(component.group_scheme(topic, &config)?)
    }

    /// Loads the component of this name, or in this file. Returns it with its configuration as JSON.
    fn load_component(&self, name: &str, built_in: &[&str]) -> Result<(Component, String), CliError> {
        let (codec, config) = match self.codecs.get(name) {
            Some(codec) => {
                // OK because `Config` refuses TOML values that JSON does not have.
                let config =
                    codec.config.as_ref().map(|config| serde_json::to_string(config).expect("serializes"));
                (codec.clone(), config.unwrap_or_else(|| "{}".to_owned()))
            }
            None if Path::new(name).extension().is_some_and(|extension| extension == "wasm") => {
                let limits = LimitsConfig::default();
                let codec = CodecConfig { component: name.into(), digest: None, config: None, limits };
                (codec, self.codec_config.clone())
            }
            None if Path::new(name).is_file() => {
                let reason = "the name of a component file must end with .wasm";
                return Err(CliError::Usage(format!("`{name}` is not a codec: {reason}")));
            }
            None => {
                return Err(CliError::Usage(format!(
                    "`{name}` is not a codec: name a built-in one ({}) or a component file (FILE.wasm)",
                    built_in.join(", ")
                )));
            }
        };
        let options = LoadOptions { digest: codec.digest, limits: codec.limits.limits() };
        Ok((self.engine()?.load(&codec.component, options)?, config))
    }

    /// Returns the engine, which is created on first use.
    fn engine(&self) -> Result<&Engine, CliError> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = Engine::new(codec::engine_options())?;
        Ok(self.engine.get_or_init(|| engine))
    }
}
