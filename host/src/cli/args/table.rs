//! The arguments that say which table, topic and entry, and how they are used.

use std::path::PathBuf;
use std::time::Duration;

use crate::table::OnReject;

/// Which table: `--config FILE -t NAME`, or `--log URL --topic TOPIC` with codecs.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TableArgs {
    /// The configuration that names the table [default with -t: ktables.toml].
    #[arg(long, value_name = "FILE", help_heading = "Table")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// The table's name in the configuration.
    #[arg(short, long, value_name = "NAME", help_heading = "Table", conflicts_with_all = ["log", "topic"])]
    pub(in crate::cli) table: Option<String>,
    /// The log: kafka://HOST:PORT,… or dir:PATH.
    #[arg(long, value_name = "URL", help_heading = "Table", requires = "topic")]
    pub(in crate::cli) log: Option<String>,
    /// The topic in the log.
    #[arg(long, value_name = "TOPIC", help_heading = "Table", requires = "log")]
    pub(in crate::cli) topic: Option<String>,
    /// utf8, bytes, json, or a component file [default: utf8].
    #[arg(long, value_name = "CODEC", help_heading = "Table", requires = "log", conflicts_with = "table")]
    pub(in crate::cli) key_codec: Option<String>,
    /// utf8, bytes, json, or a component file [default: json].
    #[arg(long, value_name = "CODEC", help_heading = "Table", requires = "log", conflicts_with = "table")]
    pub(in crate::cli) value_codec: Option<String>,
    /// The configuration of the component files, JSON.
    #[arg(long, value_name = "JSON", help_heading = "Table", requires = "log", conflicts_with = "table")]
    pub(in crate::cli) codec_config: Option<String>,
    /// length-prefixed, or a component file: the table is a grouped one.
    #[arg(long, value_name = "SCHEME", help_heading = "Table", requires = "log", conflicts_with = "table")]
    pub(in crate::cli) group_scheme: Option<String>,
    /// What a rejected record does to the entry of its key: nothing, remove it, or end the
    /// table [default: the configuration's, or keep].
    #[arg(long, value_enum, help_heading = "Table")]
    pub(in crate::cli) on_reject: Option<OnReject>,
    /// How long an entry lives after the timestamp of its record [default: the
    /// configuration's, or for ever].
    #[arg(long, value_name = "TIME", help_heading = "Table", value_parser = humantime::parse_duration)]
    pub(in crate::cli) ttl: Option<Duration>,
    /// A folder with a checkpoint, made if it is not there: the command begins with what is
    /// in it, and reads from the log only what came since.
    #[arg(long, value_name = "DIR", help_heading = "Table")]
    pub(in crate::cli) checkpoint: Option<PathBuf>,
    /// How old a checkpoint may be [default: the topic's delete.retention.ms].
    #[arg(long, value_name = "TIME", help_heading = "Table", value_parser = humantime::parse_duration)]
    pub(in crate::cli) checkpoint_max_age: Option<Duration>,
    #[command(flatten)]
    pub(in crate::cli) property: PropertyArgs,
    /// How long to wait for the table to be complete.
    #[arg(long, value_name = "TIME", help_heading = "Table", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(in crate::cli) catchup_timeout: Duration,
}

/// How to use the log.
#[derive(Debug, Default, clap::Args)]
pub(in crate::cli) struct PropertyArgs {
    /// A property of the log, as often as wanted: isolation, stale_after, acks,
    /// idempotence, oauth_token_file, or one of librdkafka's. Others may see it: secrets belong into the
    /// configuration.
    #[arg(short = 'X', value_name = "NAME=VALUE", help_heading = "Table")]
    pub(in crate::cli) property: Vec<String>,
}

/// A log and a topic in it.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TopicArgs {
    /// The log: kafka://HOST:PORT,… or dir:PATH.
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) log: String,
    /// The topic's name.
    #[arg(long)]
    pub(in crate::cli) topic: String,
    #[command(flatten)]
    pub(in crate::cli) property: PropertyArgs,
}

/// Which entry.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct EntryArgs {
    /// The key; with --in, the member.
    #[arg(value_name = "KEY")]
    pub(in crate::cli) key: String,
    /// The group that the member is in.
    #[arg(long = "in", value_name = "GROUP")]
    pub(in crate::cli) group: Option<String>,
}
