//! From arguments and configuration to codecs, tables and writers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::cli::args::{TableArgs, WaitArgs};
use crate::cli::config::{CodecConfig, Config, LimitsConfig, TableConfig, nearest};
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

/// The names that mean a built-in codec.
const BUILT_IN: [&str; 3] = ["utf8", "bytes", "json"];

/// The built-in group scheme's name.
const LENGTH_PREFIXED: &str = "length-prefixed";

/// A topic, and how it is read and written.
pub(super) struct Opened {
    pub(super) log: Arc<dyn Log>,
    pub(super) topic: String,
    codecs: Codecs,
    verify: Verify,
    catchup_timeout: Duration,
    ensure: Option<EnsureTopic>,
    on_reject: OnReject,
    ttl: Option<Duration>,
    checkpoint: Option<PathBuf>,
    checkpoint_max_age: Option<Duration>,
    memory_limit: Option<usize>,
}

/// Where codecs come from.
struct Codex {
    codecs: std::collections::BTreeMap<String, CodecConfig>,
    /// For component files named in the arguments.
    codec_config: String,
    engine: OnceLock<Engine>,
}

impl Opened {
    /// What the arguments name.
    pub(super) async fn new(args: TableArgs) -> Result<Self, CliError> {
        // Compiling a component blocks.
        let work = tokio::task::spawn_blocking(move || Self::resolve(args));
        work.await.map_err(|error| CliError::Usage(format!("opening the table failed: {error}")))?
    }

    fn resolve(args: TableArgs) -> Result<Self, CliError> {
        let catchup_timeout = args.catchup_timeout;
        let (on_reject, ttl) = (args.on_reject, args.ttl);
        let (checkpoint, checkpoint_max_age) = (args.checkpoint.clone(), args.checkpoint_max_age);
        let (log, mut table, codex) = match (&args.log, &args.topic, &args.table) {
            (Some(url), Some(topic), None) => on_the_spot(&args, url, topic)?,
            (None, None, Some(name)) => from_config(&args, name)?,
            _ => {
                return Err(CliError::Usage(
                    "which table? Name one of a configuration (--config ktables.toml -t NAME), or a log and a \
                     topic (--log kafka://HOST:PORT --topic TOPIC)"
                        .to_owned(),
                ));
            }
        };
        table.on_reject = on_reject.or(table.on_reject);
        table.ttl = ttl.or(table.ttl);
        table.checkpoint = checkpoint.or(table.checkpoint);
        table.checkpoint_max_age = checkpoint_max_age.or(table.checkpoint_max_age);
        let codecs = Codecs {
            key: codex.key(table.key_codec.as_deref().unwrap_or("utf8"), &table.topic)?,
            value: codex.value(table.value_codec.as_deref().unwrap_or("json"), &table.topic)?,
            scheme: table.group_scheme.as_deref().map(|name| codex.scheme(name, &table.topic)).transpose()?,
        };
        let verify = table.verify.unwrap_or_default();
        let log = logs::open(&log.0, log.1, &args.property)?;
        let ensure = table.ensure().map_err(CliError::Usage)?;
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

    /// The table, loaded, with progress shown meanwhile.
    pub(super) async fn table(&self) -> Result<Table, CliError> {
        let builder = Table::builder(self.log.clone(), &self.topic, self.codecs.clone())
            .catchup_timeout(self.catchup_timeout);
        let mut builder = builder.on_reject(self.on_reject);
        if let Some(how) = &self.ensure {
            builder = builder.ensure_topic(how.clone());
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
        // If it is degraded, it has said so.
        progress::shown(&table, table.ready()).await?;
        let stats = table.stats();
        let rejected: u64 = stats.rejects.values().sum();
        if rejected > 0 {
            tracing::warn!("{rejected} of {} records are rejected: see `ktables rejects`", stats.records);
        }
        Ok(table)
    }

    /// The key of a member of a group; `None` if the group scheme has none for it.
    pub(super) async fn key_of(&self, group: &str, member: &str) -> Result<Option<String>, CliError> {
        let (codecs, group, member) = (self.codecs.clone(), group.to_owned(), member.to_owned());
        let lane = Lane::new(&self.codecs, Purpose::Read);
        let join = move || CheckedCodecs(&codecs).join(&group, &member);
        match workers::run(&lane, join).await? {
            Some(Ok(mut answers)) => Ok(answers.pop().and_then(Result::ok).map(String::from)),
            Some(Err(CodecFailure::Host(failure))) => Err(failure.into()),
            Some(Err(CodecFailure::Fault(_))) | None => Ok(None),
        }
    }

    /// Fails if the table is not a grouped one.
    pub(super) fn require_groups(&self) -> Result<(), CliError> {
        if self.codecs.scheme.is_some() {
            return Ok(());
        }
        Err(CliError::Usage(
            "this table has no groups: name a group scheme (--group-scheme, or group_scheme in the configuration)"
                .to_owned(),
        ))
    }

    /// A writer to the topic; to the table, if writes are to be visible in it.
    pub(super) async fn writer(
        &self,
        verify: Option<Verify>,
        wait: Option<WaitArgs>,
    ) -> Result<Writer, CliError> {
        let verify = verify.unwrap_or(self.verify);
        let writer = with_timeout(&*self.log, &self.topic, self.catchup_timeout, async {
            if let Some(how) = &self.ensure {
                ensure_topic(&*self.log, &self.topic, how).await?;
            }
            Writer::open(self.log.clone(), &self.topic, self.codecs.clone()).await
        });
        let writer = writer.await?.verify(verify);
        match wait {
            Some(WaitArgs { wait: true }) => {
                Ok(writer.visible_in(&self.table().await?, self.catchup_timeout))
            }
            _ => Ok(writer),
        }
    }
}

fn on_the_spot(
    args: &TableArgs,
    url: &str,
    topic: &str,
) -> Result<((String, LogOptions), TableConfig, Codex), CliError> {
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
    let codex = Codex { codecs: std::collections::BTreeMap::new(), codec_config, engine: OnceLock::new() };
    Ok(((url.to_owned(), LogOptions::default()), table, codex))
}

fn from_config(args: &TableArgs, name: &str) -> Result<((String, LogOptions), TableConfig, Codex), CliError> {
    let path = args.config.as_deref().unwrap_or(Path::new("ktables.toml"));
    let mut config = Config::read(path)?;
    if let Some(bytes) = config.limits.memory {
        set_process_limit(bytes as u64);
    }
    let unknown = |kind: &str, name: &str, known: Vec<&str>| {
        let nearest =
            nearest(name, &known).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
        CliError::Usage(format!(
            "{}: there is no {kind} `{name}`{nearest} (there is: {})",
            path.display(),
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        ))
    };
    let usable = |section: &'static str, name: &str| {
        let unset = |reason| CliError::Usage(format!("{}: {reason}", path.display()));
        config.check_usable(section, name).map_err(unset)
    };
    usable("tables", name)?;
    let names: Vec<&str> = config.tables.keys().map(String::as_str).collect();
    if !config.tables.contains_key(name) {
        return Err(unknown("table", name, names));
    }
    if let Some(name) =
        config.codecs.keys().find(|name| BUILT_IN.contains(&name.as_str()) || *name == LENGTH_PREFIXED)
    {
        return Err(CliError::Usage(format!(
            "{}: `{name}` is a built-in codec; name yours otherwise",
            path.display()
        )));
    }
    // OK because it was there a statement ago.
    let table = config.tables.get(name).expect("a table of this name");
    usable("logs", &table.log)?;
    for codec in [&table.key_codec, &table.value_codec, &table.group_scheme].into_iter().flatten() {
        usable("codecs", codec)?;
    }
    // OK as above.
    let table = config.tables.remove(name).expect("a table of this name");
    let log = match config.logs.get(&table.log) {
        Some(log) => (log.url.clone(), log.options()),
        None => return Err(unknown("log", &table.log, config.logs.keys().map(String::as_str).collect())),
    };
    let known: Vec<&str> = config.codecs.keys().map(String::as_str).collect();
    let key_and_value = [&table.key_codec, &table.value_codec].into_iter().flatten();
    for codec in key_and_value.filter(|codec| !BUILT_IN.contains(&codec.as_str())) {
        if !config.codecs.contains_key(codec) {
            return Err(unknown("codec", codec, known.into_iter().chain(BUILT_IN).collect()));
        }
    }
    if let Some(scheme) = table.group_scheme.as_ref().filter(|scheme| *scheme != LENGTH_PREFIXED)
        && !config.codecs.contains_key(scheme)
    {
        return Err(unknown("codec", scheme, known.into_iter().chain([LENGTH_PREFIXED]).collect()));
    }
    Ok((log, table, Codex { codecs: config.codecs, codec_config: "{}".to_owned(), engine: OnceLock::new() }))
}

/// The built-in codec of this name; the codecs are in the order of [`BUILT_IN`].
fn built_in<T: ?Sized>(name: &str, codecs: [Arc<T>; BUILT_IN.len()]) -> Option<Arc<T>> {
    BUILT_IN.into_iter().zip(codecs).find_map(|(known, codec)| (known == name).then_some(codec))
}

impl Codex {
    fn key(&self, name: &str, topic: &str) -> Result<Arc<dyn KeyCodec>, CliError> {
        if let Some(codec) = built_in::<dyn KeyCodec>(name, [Arc::new(Utf8), Arc::new(Bytes), Arc::new(Json)])
        {
            return Ok(codec);
        }
        let (component, config) = self.component(name, &BUILT_IN)?;
        Ok(component.key_codec(topic, &config)?)
    }

    fn value(&self, name: &str, topic: &str) -> Result<Arc<dyn ValueCodec>, CliError> {
        if let Some(codec) =
            built_in::<dyn ValueCodec>(name, [Arc::new(Utf8), Arc::new(Bytes), Arc::new(Json)])
        {
            return Ok(codec);
        }
        let (component, config) = self.component(name, &BUILT_IN)?;
        Ok(component.value_codec(topic, &config)?)
    }

    fn scheme(&self, name: &str, topic: &str) -> Result<Arc<dyn GroupScheme>, CliError> {
        if name == LENGTH_PREFIXED {
            return Ok(Arc::new(LengthPrefixed));
        }
        let (component, config) = self.component(name, &[LENGTH_PREFIXED])?;
        Ok(component.group_scheme(topic, &config)?)
    }

    /// The component of this name, or in this file, and its configuration.
    fn component(&self, name: &str, built_in: &[&str]) -> Result<(Component, String), CliError> {
        let (codec, config) = match self.codecs.get(name) {
            Some(codec) => {
                // OK because `Config` refuses what TOML has and JSON has not.
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
                let reason = "the name of a component's file ends with .wasm";
                return Err(CliError::Usage(format!("`{name}` is no codec: {reason}")));
            }
            None => {
                return Err(CliError::Usage(format!(
                    "`{name}` is no codec: it is neither built in ({}) nor a file FILE.wasm",
                    built_in.join(", ")
                )));
            }
        };
        let options = LoadOptions { digest: codec.digest, limits: codec.limits.limits() };
        Ok((self.engine()?.load(&codec.component, options)?, config))
    }

    fn engine(&self) -> Result<&Engine, CliError> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = Engine::new(codec::engine_options())?;
        Ok(self.engine.get_or_init(|| engine))
    }
}
