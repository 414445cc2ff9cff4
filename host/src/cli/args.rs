//! The arguments.

mod table;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::log::OnPolicyMismatch;
use crate::writer::Verify;
pub(super) use table::{EntryArgs, PropertyArgs, TableArgs, TopicArgs};

/// Kafka topics as in-memory tables, decoded by sandboxed WebAssembly components.
#[derive(Debug, Parser)]
#[command(
    name = "ktables",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  ktables topic ensure --log dir:./data --topic services
  ktables set billing '{\"port\": 8080}' --log dir:./data --topic services
  ktables get billing --log dir:./data --topic services
  ktables watch --config ktables.toml -t services
  ktables keys --log kafka://localhost:9092 --topic services

Exit codes: 0 done, 1 the answer is no, 2 usage, 3 the environment failed,
4 degraded: the answer may be incomplete.

Messages go to standard error; KTABLES_LOG sets how many (warn, info, debug,
ktables::guest=trace, ...)."
)]
pub struct Args {
    /// How answers look; json is the default where the output is no terminal.
    #[arg(long, global = true, value_enum)]
    pub(super) output: Option<Format>,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// How answers look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs: JSON, an object a line where there are many.
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Get(GetArgs),
    Keys(KeysArgs),
    Groups(GroupsArgs),
    Members(MembersArgs),
    Dump(DumpArgs),
    Set(SetArgs),
    Delete(DeleteArgs),
    Import(ImportArgs),
    Watch(WatchArgs),
    Status(StatusArgs),
    Rejects(RejectsArgs),
    Produce(ProduceArgs),
    /// Make and describe topics.
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Look at components and build them.
    #[command(subcommand)]
    Codec(CodecCommand),
    /// Look at checkpoints and remove them.
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
}

/// Print the value of a key, or of a member of a group.
///
/// Exit code 1 if there is none; 4 if the table is degraded, whatever it has.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables get billing --log dir:./data --topic services
  ktables get --in billing host-a -t services
  ktables get billing -t services --verbose")]
pub(super) struct GetArgs {
    #[command(flatten)]
    pub(super) entry: EntryArgs,
    /// Print where the value came from, and whether a newer one was rejected.
    #[arg(long)]
    pub(super) verbose: bool,
    /// Print the value of a key whose time is over, too.
    #[arg(long, conflicts_with = "group")]
    pub(super) expired: bool,
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Print the keys, in order.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables keys -t services --prefix bill
  ktables keys -t services --start a --end c --limit 10")]
pub(super) struct KeysArgs {
    /// Only keys that begin with this.
    #[arg(long, value_name = "PREFIX")]
    pub(super) prefix: Option<String>,
    /// Only keys from this on.
    #[arg(long, value_name = "KEY")]
    pub(super) start: Option<String>,
    /// Only keys before this.
    #[arg(long, value_name = "KEY")]
    pub(super) end: Option<String>,
    /// At most this many.
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Print the groups, with the number of their members.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables groups -t services")]
pub(super) struct GroupsArgs {
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Print the members of a group, with their values.
///
/// Exit code 1 if there are none.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables members billing -t services")]
pub(super) struct MembersArgs {
    /// The group.
    pub(super) group: String,
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Print all entries, by key: NDJSON {"key","value","partition","offset","timestamp"}.
///
/// One whose newest record was rejected says so: "rejected":{"partition","offset","kind","message"}.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables dump -t services > backup.ndjson
  ktables dump -t services | ktables import --log dir:./copy --topic services")]
pub(super) struct DumpArgs {
    /// Print entries whose time is over, too, marked "expired".
    #[arg(long)]
    pub(super) expired: bool,
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Set the value of a key, or of a member of a group.
///
/// Prints partition and offset when the record is durable. What does not decode
/// to the same JSON again is not published. With --heartbeat, each write is printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables set billing '{\"port\": 8080}' -t services
  ktables set --in billing host-a '{\"port\": 8080}' -t services
  echo '\"text\"' | ktables set note - -t notes
  ktables set --in billing host-a '{\"port\": 8080}' -t services --heartbeat 10s")]
pub(super) struct SetArgs {
    #[command(flatten)]
    pub(super) entry: EntryArgs,
    /// The value, JSON; - reads it from standard input.
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    pub(super) value: String,
    #[command(flatten)]
    pub(super) verify: VerifyArgs,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
    /// Write it again every so often until Ctrl-C or the end of the terminal, and delete it then:
    /// for tables whose entries expire (ttl).
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub(super) heartbeat: Option<Duration>,
    /// Leave the entry at the end of the heartbeats.
    #[arg(long, requires = "heartbeat")]
    pub(super) keep: bool,
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// What to wait for after writing.
#[derive(Debug, clap::Args)]
pub(super) struct WaitArgs {
    /// Load the table, and wait until the write is visible in it.
    #[arg(long)]
    pub(super) wait: bool,
}

/// What is checked before publishing.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// What to check of an encoded value: that it decodes to equal JSON, that it
    /// decodes, or nothing [default: the configuration's, or equal].
    #[arg(long, value_enum)]
    pub(super) verify: Option<Verify>,
}

/// Delete a key, or a member of a group.
///
/// Writes a tombstone; prints its partition and offset when it is durable.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables delete billing -t services
  ktables delete --in billing host-a -t services")]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    pub(super) entry: EntryArgs,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Write many entries from standard input: NDJSON {"key","value"} or {"key","delete":true}.
///
/// With a group scheme, {"group","member","value"} too; what `dump` prints is
/// accepted as it is. Lines are written as they come: when the input pauses, what was read is
/// written. Everything is acknowledged, or listed with its line on standard error. Prints how many
/// "lines" were read and became of them: "acknowledged", "refused", "expired" (skipped), "blank".
/// Exit code 1 if anything was refused.
///
/// The first Ctrl-C ends reading, and waits until what was read is acknowledged or refused: on a
/// cluster that does not answer, up to two minutes (delivery.timeout.ms). The second gives up what
/// is not acknowledged, and lists it, within seconds. The third ends the command at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables import -t services < backup.ndjson
  ktables dump -t services | ktables import --log dir:./copy --topic services")]
pub(super) struct ImportArgs {
    #[command(flatten)]
    pub(super) verify: VerifyArgs,
    /// Write entries that `dump --expired` marked "expired", too; they are skipped otherwise.
    #[arg(long)]
    pub(super) expired: bool,
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Follow the table: NDJSON, until Ctrl-C.
///
/// First the entries as `dump` prints them, then {"event":"synced"}, then changes
/// {"key","old","new","partition","offset","timestamp"} (a delete has "delete":true). A change
/// that no record made says why: "cause" is rejected, expired, revived, retention, generation or difference.
///
/// Between them stand events: "rejected" (a record was rejected: "key" if it can be decoded,
/// "partition", "offset", "kind", "message"), "status" ("status", "reason"), "generation" (the
/// topic was replaced, or is read anew), "restarted" (this command was far too slow: all entries
/// follow again, then "synced"). If it was a little too slow, it prints the difference to what is
/// there now, with "cause":"difference"; with --every, "lagged" ("missed": how many publications).
///
/// It ends on Ctrl-C, or when nobody reads its output any more.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables watch -t services
  ktables watch -t services --from-now | jq .new
  ktables watch -t services --in billing
  ktables watch -t services --resume services.token >> changes.ndjson")]
pub(super) struct WatchArgs {
    /// Leave the entries out.
    #[arg(long)]
    pub(super) from_now: bool,
    /// Print every change, or a "lagged" event where this command was too slow, instead of the
    /// difference.
    #[arg(long)]
    pub(super) every: bool,
    /// Continue where an earlier `watch` with this file ended, and keep the place in it. If the changes
    /// since then are not known any more, print a "restarted" event and all entries.
    #[arg(long, value_name = "FILE")]
    pub(super) resume: Option<PathBuf>,
    /// Only this key.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["prefix", "group"])]
    pub(super) key: Option<String>,
    /// Only keys that begin with this.
    #[arg(long, value_name = "PREFIX", conflicts_with = "group")]
    pub(super) prefix: Option<String>,
    /// Only members of this group.
    #[arg(long = "in", value_name = "GROUP")]
    pub(super) group: Option<String>,
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Print status, counts, positions and lag.
///
/// Exit code 4 if the table is degraded.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables status -t services")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Print the records rejected last (at most 1,000): NDJSON, raw bytes as base64.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  ktables rejects -t services | jq -r .raw | head -1 | base64 -d | xxd")]
pub(super) struct RejectsArgs {
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Write one raw record: for tests and repair.
///
/// Key and value are written as they are given; no codec is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables produce --log dir:./data --topic t --key k --value '{}'
  ktables produce --log dir:./data --topic t --key-file key.bin --value-file value.bin --header origin=test
  ktables produce --log dir:./data --topic t --key k --null")]
#[command(group(clap::ArgGroup::new("record-key").required(true).args(["key", "key_file", "keyless"])))]
#[command(group(clap::ArgGroup::new("record-value").required(true).args(["value", "value_file", "null"])))]
pub(super) struct ProduceArgs {
    #[command(flatten)]
    pub(super) place: TopicArgs,
    /// The key, as UTF-8.
    #[arg(long, allow_hyphen_values = true)]
    pub(super) key: Option<String>,
    /// A file with the key's bytes.
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
    /// A null key.
    #[arg(long)]
    pub(super) keyless: bool,
    /// The value, as UTF-8.
    #[arg(long, allow_hyphen_values = true)]
    pub(super) value: Option<String>,
    /// A file with the value's bytes.
    #[arg(long, value_name = "FILE")]
    pub(super) value_file: Option<PathBuf>,
    /// A null value: a tombstone.
    #[arg(long)]
    pub(super) null: bool,
    /// A header, as often as wanted.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) header: Vec<String>,
    /// The partition, instead of the key's own.
    #[arg(long, value_name = "N")]
    pub(super) partition: Option<i32>,
    /// The timestamp, in milliseconds since 1970 [default: now].
    #[arg(long, value_name = "MILLIS")]
    pub(super) timestamp: Option<i64>,
}

#[derive(Debug, Subcommand)]
pub(super) enum TopicCommand {
    Ensure(EnsureArgs),
    Describe(DescribeArgs),
}

/// Create a topic if it is not there; on a cluster, a compacted one.
///
/// A topic that is there stays as it is, with a warning if it is not compacted: its
/// old entries may be deleted. Prints what was found or done: created, verified,
/// reconciled, mismatch, unreadable or skipped. Exit code 1 if --on-policy-mismatch is
/// raise, and the topic is not compacted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables topic ensure --log dir:./data --topic services --partitions 4
  ktables topic ensure --log kafka://localhost:9092 --topic services --replication-factor 3
  ktables topic ensure --log kafka://localhost:9092 --topic services --on-policy-mismatch reconcile")]
pub(super) struct EnsureArgs {
    #[command(flatten)]
    pub(super) place: TopicArgs,
    /// The partitions of a new topic [default: the log's; a directory makes 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(super) partitions: Option<i32>,
    /// The replicas of a new topic [default: the log's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    pub(super) replication_factor: Option<i16>,
    /// A setting of a new topic, as often as wanted.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) setting: Vec<String>,
    /// What to do about a topic that is there and is not compacted: not look, warn, fail,
    /// or change its cleanup.policy and nothing else.
    #[arg(long, value_enum, default_value = "warn")]
    pub(super) on_policy_mismatch: OnPolicyMismatch,
}

/// Print a topic's identity, partitions and offsets.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables topic describe --log dir:./data --topic services")]
pub(super) struct DescribeArgs {
    #[command(flatten)]
    pub(super) place: TopicArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum CheckpointCommand {
    /// Print what a checkpoint holds, and check every byte of it.
    ///
    /// Exit code 1 if it is damaged, or there is none.
    #[command(after_help = "Example:\n  ktables checkpoint inspect ./checkpoints/services")]
    Inspect(CheckpointArgs),
    /// Remove a checkpoint. The next table replays its topic.
    #[command(after_help = "Example:\n  ktables checkpoint remove ./checkpoints/services")]
    Remove(CheckpointArgs),
}

/// Which checkpoint.
#[derive(Debug, clap::Args)]
pub(super) struct CheckpointArgs {
    /// Its folder.
    #[arg(value_name = "DIR")]
    pub(super) folder: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum CodecCommand {
    Inspect(InspectArgs),
    Build(BuildArgs),
}

/// Print what a component is, and whether it is accepted.
///
/// Exit code 1 if it is refused, with the reasons.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables codec inspect service.wasm")]
pub(super) struct InspectArgs {
    /// The component.
    #[arg(value_name = "FILE.wasm")]
    pub(super) file: PathBuf,
}

/// Turn a core module that was built against the WIT package into a component.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo build --release --target wasm32-unknown-unknown
  ktables codec build target/wasm32-unknown-unknown/release/my_codec.wasm -o my_codec.wasm
  ktables codec build go.wasm -o codec.wasm --stub-wasi")]
pub(super) struct BuildArgs {
    /// The core module.
    #[arg(value_name = "CORE.wasm")]
    pub(super) core: PathBuf,
    /// Where the component goes.
    #[arg(short, long = "out", value_name = "FILE.wasm")]
    pub(super) out: PathBuf,
    /// Satisfy imports of WASI preview 1 with functions that do nothing: no
    /// files, no environment, a counting clock, fixed randomness.
    #[arg(long)]
    pub(super) stub_wasi: bool,
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("it has to be more than nothing".to_owned()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}
