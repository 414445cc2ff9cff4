//! The arguments of the commands that need no table: `produce` and `topic`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::args::table::{LogArgs, TopicArgs};
use crate::log::OnPolicyMismatch;

/// Write one raw record, for tests and repairs.
///
/// Key and value are written as given, without a codec.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables produce --log dir:./data --topic t --key k --value '{}'
  ktables produce --log dir:./data --topic t --key-file key.bin --value-file value.bin --header origin=test
  ktables produce --log dir:./data --topic t --key k --null")]
#[command(group(clap::ArgGroup::new("record-key").required(true).args(["key", "key_file", "keyless"])))]
#[command(group(clap::ArgGroup::new("record-value").required(true).args(["value", "value_file", "null"])))]
pub(in crate::cli) struct ProduceArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TopicArgs,
    /// The key, as UTF-8.
    #[arg(long, allow_hyphen_values = true)]
    pub(in crate::cli) key: Option<String>,
    /// A file with the key's bytes.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) key_file: Option<PathBuf>,
    /// Write a null key.
    #[arg(long)]
    pub(in crate::cli) keyless: bool,
    /// The value, as UTF-8.
    #[arg(long, allow_hyphen_values = true)]
    pub(in crate::cli) value: Option<String>,
    /// A file with the value's bytes.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) value_file: Option<PathBuf>,
    /// Write a null value, which is a tombstone.
    #[arg(long)]
    pub(in crate::cli) null: bool,
    /// A header of the record. May be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(in crate::cli) header: Vec<String>,
    /// The partition [default: chosen by the hash of the key].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..), allow_negative_numbers = true)]
    pub(in crate::cli) partition: Option<i32>,
    /// The timestamp, in milliseconds since 1970-01-01 UTC [default: now].
    #[arg(long, value_name = "MILLIS", value_parser = clap::value_parser!(i64).range(0..), allow_negative_numbers = true)]
    pub(in crate::cli) timestamp: Option<i64>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TopicCommand {
    Ensure(EnsureArgs),
    List(ListArgs),
    Describe(DescribeArgs),
    Delete(DeleteTopicArgs),
}

/// Print the names of the topics of a log, in order.
///
/// Topics of a cluster whose names begin with __, as Kafka's internal ones do, are left out.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables topic list --log kafka://localhost:9092")]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    pub(in crate::cli) log: LogArgs,
}

/// Delete a topic, with all of its records.
///
/// This cannot be undone. Tables that follow the topic keep their contents, and become degraded.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables topic delete --log dir:./data --topic services --yes")]
pub(in crate::cli) struct DeleteTopicArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TopicArgs,
    /// Confirm that all records may be deleted.
    #[arg(long)]
    pub(in crate::cli) yes: bool,
}

/// Create a topic if it does not exist. On a cluster, the new topic is compacted.
///
/// An existing topic keeps its settings, and a warning says which of those given here differ. If it is not
/// compacted, its old entries may be deleted, and
/// --on-policy-mismatch says what to do about that. Prints the outcome: created; or, if the topic
/// exists, verified (it is compacted), reconciled (it is compacted now), mismatch (it is not), unreadable (no
/// right to read its policy) or skipped (its policy was not checked). Exit code 1 if --on-policy-mismatch is raise and the topic is not
/// compacted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables topic ensure --log dir:./data --topic services --partitions 4
  ktables topic ensure --log kafka://localhost:9092 --topic services --replication-factor 3
  ktables topic ensure --log kafka://localhost:9092 --topic services --on-policy-mismatch reconcile")]
pub(in crate::cli) struct EnsureArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TopicArgs,
    /// The number of partitions of a new topic [default: the broker's; 1 in a directory].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(in crate::cli) partitions: Option<i32>,
    /// The replication factor of a new topic [default: the broker's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    pub(in crate::cli) replication_factor: Option<i16>,
    /// A setting of a new topic. May be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(in crate::cli) setting: Vec<String>,
    /// What to do about an existing topic that is not compacted.
    #[arg(long, value_enum, default_value = "warn")]
    pub(in crate::cli) on_policy_mismatch: OnPolicyMismatch,
}

/// Print the id, the cleanup policy, and the partitions of a topic with their offsets.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables topic describe --log dir:./data --topic services")]
pub(in crate::cli) struct DescribeArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TopicArgs,
}
