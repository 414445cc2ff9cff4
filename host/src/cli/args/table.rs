//! The arguments that name a table, a topic or an entry, and their options.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::args::ServerArgs;
use crate::cli::args::values::parse_positive_duration;
use crate::table::{DeadLetterOnError, OnQuarantine, OnReject};

/// A table: `--config FILE -t NAME`, `--log URL --topic TOPIC`, or `--server URL -t NAME`. Further arguments replace its
/// settings.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct TableArgs {
    /// The configuration file [default: ktables.toml].
    #[arg(long, value_name = "FILE", help_heading = "Table", conflicts_with_all = ["log", "topic"])]
    pub(in crate::cli) config: Option<PathBuf>,
    /// The name of the table in the configuration, or of a table of the server.
    #[arg(short, long, value_name = "NAME", help_heading = "Table", conflicts_with_all = ["log", "topic"])]
    pub(in crate::cli) table: Option<String>,
    /// The log: kafka://HOST:PORT,… or dir:PATH.
    #[arg(long, value_name = "URL", help_heading = "Table", requires = "topic")]
    pub(in crate::cli) log: Option<String>,
    /// The topic in the log.
    #[arg(long, value_name = "TOPIC", help_heading = "Table", requires = "log")]
    pub(in crate::cli) topic: Option<String>,
    /// The codec of keys: utf8, bytes, json, avro, json-schema, protobuf, a component file, or the name of a codec in the
    /// configuration [default: the configuration's, or utf8].
    #[arg(long, value_name = "CODEC", help_heading = "Table")]
    pub(in crate::cli) key_codec: Option<String>,
    /// The codec of values: utf8, bytes, json, avro, json-schema, protobuf, a component file, or the name of a codec in the
    /// configuration [default: the configuration's, or json].
    #[arg(long, value_name = "CODEC", help_heading = "Table")]
    pub(in crate::cli) value_codec: Option<String>,
    /// The configuration of the key codec, if it is a component: a JSON object [default: the
    /// configuration's, or {}].
    #[arg(long, value_name = "JSON", help_heading = "Table")]
    pub(in crate::cli) key_codec_config: Option<String>,
    /// The configuration of the value codec, if it is a component: a JSON object [default: the
    /// configuration's, or {}].
    #[arg(long, value_name = "JSON", help_heading = "Table")]
    pub(in crate::cli) value_codec_config: Option<String>,
    /// The schema registry of the components: its address, or its name in the configuration, with credentials [default:
    /// the configuration's; with --log, $KTABLES_SCHEMA_REGISTRY].
    #[arg(long, value_name = "REGISTRY", help_heading = "Table")]
    pub(in crate::cli) schema_registry: Option<String>,
    /// The configuration of the group scheme, if it is a component: a JSON object [default: the
    /// configuration's, or {}].
    #[arg(long, value_name = "JSON", help_heading = "Table")]
    pub(in crate::cli) group_scheme_config: Option<String>,
    /// A limit of the table's components, for example memory=128MiB: memory, output, deadline,
    /// deadline_per_record, start_deadline, recycle_calls, recycle_age, or profile, which sets the defaults of the
    /// others: small, or large for interpreters. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Table")]
    pub(in crate::cli) codec_limit: Vec<String>,
    /// The group scheme, which splits keys into groups and members: length-prefixed, a component
    /// file, or the name of a codec in the configuration. It sees keys only, because a tombstone has no value: to group
    /// by a field of the value, write that field into the key.
    #[arg(long, value_name = "SCHEME", help_heading = "Table")]
    pub(in crate::cli) group_scheme: Option<String>,
    /// What happens to the entry of a key whose newest record was rejected [default: the configuration's, or
    /// keep].
    #[arg(long, value_enum, help_heading = "Table")]
    pub(in crate::cli) on_reject: Option<OnReject>,
    /// What happens when a component keeps faulting: one record at a time is decoded (probe), none until the command is
    /// restarted with another component (wait), or its records go on being rejected at full speed (reject)
    /// [default: the configuration's, or probe].
    #[arg(long, value_enum, help_heading = "Table", hide_possible_values = true)]
    pub(in crate::cli) on_quarantine: Option<OnQuarantine>,
    /// The dead-letter topic: each rejected record is written to it, unless it holds the record already
    /// [default: the configuration's, or none].
    #[arg(long, value_name = "TOPIC", help_heading = "Table")]
    pub(in crate::cli) dead_letter: Option<String>,
    /// What happens when the dead-letter topic cannot be written: the table applies no more records (wait), or goes
    /// on and counts the rejected records that were not kept (continue) [default: the configuration's, or wait].
    #[arg(long, value_enum, help_heading = "Table", hide_possible_values = true)]
    pub(in crate::cli) dead_letter_on_error: Option<DeadLetterOnError>,
    /// The time to live: entries expire this long after the timestamp of their record [default: the
    /// configuration's, or never].
    #[arg(long, value_name = "TIME", help_heading = "Table", value_parser = parse_positive_duration)]
    pub(in crate::cli) ttl: Option<Duration>,
    /// The folder of a checkpoint, which is created if it does not exist. The command loads the checkpoint,
    /// and reads only newer records from the log.
    #[arg(long, value_name = "DIR", help_heading = "Table")]
    pub(in crate::cli) checkpoint: Option<PathBuf>,
    /// The maximum age of a checkpoint [default: the configuration's, or the topic's
    /// delete.retention.ms]. An older one is not used.
    #[arg(long, value_name = "TIME", help_heading = "Table", value_parser = humantime::parse_duration)]
    pub(in crate::cli) checkpoint_max_age: Option<Duration>,
    #[command(flatten)]
    pub(in crate::cli) property: PropertyArgs,
    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
    /// How long to wait until the table is complete. After that, the command uses the partial table, which is
    /// degraded. Commands that write wait this long for the log, and again for --wait, and fail after it.
    #[arg(long, value_name = "TIME", help_heading = "Table", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(in crate::cli) catchup_timeout: Duration,
}

impl TableArgs {
    /// Returns the names of the arguments that are settings of a table that the command loads itself.
    pub(in crate::cli) fn own_settings(&self) -> impl Iterator<Item = &'static str> {
        [
            ("--config", self.config.is_some()),
            ("--log", self.log.is_some()),
            ("--key-codec", self.key_codec.is_some()),
            ("--value-codec", self.value_codec.is_some()),
            ("--key-codec-config", self.key_codec_config.is_some()),
            ("--value-codec-config", self.value_codec_config.is_some()),
            ("--schema-registry", self.schema_registry.is_some()),
            ("--group-scheme-config", self.group_scheme_config.is_some()),
            ("--codec-limit", !self.codec_limit.is_empty()),
            ("--group-scheme", self.group_scheme.is_some()),
            ("--on-reject", self.on_reject.is_some()),
            ("--on-quarantine", self.on_quarantine.is_some()),
            ("--dead-letter", self.dead_letter.is_some()),
            ("--dead-letter-on-error", self.dead_letter_on_error.is_some()),
            ("--ttl", self.ttl.is_some()),
            ("--checkpoint", self.checkpoint.is_some()),
            ("--checkpoint-max-age", self.checkpoint_max_age.is_some()),
            ("-X", !self.property.property.is_empty()),
        ]
        .into_iter()
        .filter_map(|(name, is_set)| is_set.then_some(name))
    }
}

/// Properties of a log.
#[derive(Debug, Clone, Default, clap::Args)]
pub(in crate::cli) struct PropertyArgs {
    /// A property of the log: isolation, stale_after, acks, idempotence, oauth_token_file, or a property of
    /// librdkafka. May be repeated. Other users of this machine may see arguments, so put secrets into the
    /// configuration.
    #[arg(short = 'X', value_name = "NAME=VALUE", help_heading = "Table")]
    pub(in crate::cli) property: Vec<String>,
}

/// A log.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LogArgs {
    /// The log: kafka://HOST:PORT,… or dir:PATH.
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) log: String,
    #[command(flatten)]
    pub(in crate::cli) property: PropertyArgs,
}

/// A topic in a log.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TopicArgs {
    #[command(flatten)]
    pub(in crate::cli) log: LogArgs,
    /// The name of the topic.
    #[arg(long)]
    pub(in crate::cli) topic: String,
}

/// An entry.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct EntryArgs {
    /// The key; with --in, the name of the member.
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    pub(in crate::cli) key: String,
    /// The group that the member is in.
    #[arg(long = "in", value_name = "GROUP")]
    pub(in crate::cli) group: Option<String>,
}
