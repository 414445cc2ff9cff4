//! Opens the tables and writers that arguments name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::cli::args::{TableArgs, WaitArgs};
use crate::cli::{CliError, codec, logs, progress};
use crate::codec::workers::{self, Lane, Purpose};
use crate::codec::{CheckedCodecs, CodecFailure};
use crate::config::{Catalog, CodecConfig, Config, LimitsConfig, LogConfig, TableConfig, TableSource};
use crate::log::{Log, ensure_topic, with_timeout};
use crate::table::Table;
use crate::writer::{Verify, Writer};

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
        // Compiling a component blocks.
        let mut resolved = tokio::task::spawn_blocking(move || Self::resolve_blocking(&args));
        if let Ok(resolved) = tokio::time::timeout(COMPILE_NOTICE_DELAY, &mut resolved).await {
            return resolved?;
        }
        tracing::warn!(
            "loading the codecs takes long: a component is compiled before its first use, and then cached"
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
                    "which table? Name a table of a configuration (--config ktables.toml -t NAME), or a log \
                     and a topic (--log kafka://HOST:PORT --topic TOPIC)"
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

    /// Opens the table, and waits until it is loaded or degraded. Shows its progress meanwhile.
    pub(super) async fn load(&self) -> Result<Table, CliError> {
        let table = self.source.builder().catchup_timeout(self.catchup_timeout).open().await?;
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
        let (codecs, group, member) = (self.source.codecs.clone(), group.to_owned(), member.to_owned());
        let lane = Lane::new(&self.source.codecs, Purpose::Read);
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
        if self.source.codecs.scheme.is_some() {
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
        let TableSource { log, codecs, ensure, .. } = &self.source;
        let topic = self.source.topic();
        let writer = with_timeout(&**log, topic, self.catchup_timeout, async {
            if let Some(options) = ensure {
                ensure_topic(&**log, topic, options).await?;
            }
            Writer::open(log.clone(), topic, codecs.clone()).await
        });
        let writer = writer.await?.verify(verify.unwrap_or(self.source.verify()));
        match wait {
            Some(WaitArgs { wait: true }) => Ok(writer.visible_in(&self.load().await?, self.catchup_timeout)),
            _ => Ok(writer),
        }
    }
}

/// Replaces settings of a table in the configuration by those of the arguments.
fn override_table(config: &mut Config, name: &str, args: &TableArgs) -> Result<(), CliError> {
    let Config { logs, codecs, tables, .. } = config;
    // An unknown table is reported when it is opened.
    let Some(table) = tables.get_mut(name) else { return Ok(()) };
    if let Some(log) = logs.get_mut(&table.log) {
        logs::set_properties(log, &args.property)?;
    }
    table.on_reject = args.on_reject.or(table.on_reject);
    table.ttl = args.ttl.or(table.ttl);
    table.checkpoint = args.checkpoint.clone().or(table.checkpoint.take());
    table.checkpoint_max_age = args.checkpoint_max_age.or(table.checkpoint_max_age);
    let limits = parse_limits(&args.codec_limit)?;
    for (option, codec, name, json) in [
        ("--key-codec", &mut table.key_codec, &args.key_codec, &args.key_codec_config),
        ("--value-codec", &mut table.value_codec, &args.value_codec, &args.value_codec_config),
        ("--group-scheme", &mut table.group_scheme, &args.group_scheme, &args.group_scheme_config),
    ] {
        *codec = name.clone().or(codec.take());
        override_codec(codecs, option, codec, json.as_deref(), &limits)?;
    }
    Ok(())
}

/// Adds the component of a codec to the configuration under a new name, with the settings of the arguments.
/// The component is in the configuration already, or is a file that the arguments name.
fn override_codec(
    codecs: &mut BTreeMap<String, CodecConfig>,
    option: &str,
    codec: &mut Option<String>,
    json: Option<&str>,
    limits: &LimitsConfig,
) -> Result<(), CliError> {
    let component = codec.as_deref().map(Path::new).and_then(|file| {
        let is_component = file.extension().is_some_and(|extension| extension == "wasm");
        codecs.get(codec.as_deref()?).cloned().or(is_component.then(|| CodecConfig::new(file)))
    });
    let (Some(name), Some(mut component)) = (codec.as_ref(), component) else {
        return match codec {
            _ if json.is_some() => {
                Err(CliError::Usage(format!("{option}-config needs a codec that is a component")))
            }
            Some(name) if Path::new(name).is_file() => Err(CliError::Usage(format!(
                "`{name}` is not a codec: the name of a component file must end with .wasm"
            ))),
            // An unknown codec is reported when it is loaded.
            _ => Ok(()),
        };
    };
    if let Some(json) = json {
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json)
            .map_err(|error| CliError::Usage(format!("{option}-config is not a JSON object: {error}")))?;
        component.config = Some(json.to_owned());
    }
    component.limits = limits.clone().or(&component.limits);
    // Each of the codecs may have a configuration of its own, although they are in the same file.
    let overridden = format!("{option} {name}");
    codecs.insert(overridden.clone(), component);
    *codec = Some(overridden);
    Ok(())
}

/// Parses limits, each as `NAME=VALUE`, with the names and values of the configuration file.
fn parse_limits(limits: &[String]) -> Result<LimitsConfig, CliError> {
    let mut table = toml::Table::new();
    for limit in limits {
        let (name, value) = limit.split_once('=').ok_or_else(|| {
            CliError::Usage("--codec-limit needs NAME=VALUE, for example memory=128MiB".to_owned())
        })?;
        table.insert(name.to_owned(), value.to_owned().into());
    }
    LimitsConfig::deserialize(table)
        .map_err(|error| CliError::Usage(format!("--codec-limit: {}", error.message())))
}
