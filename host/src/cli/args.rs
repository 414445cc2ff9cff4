//! The arguments of the command. Their doc comments are its help texts.

mod artifact;
mod checkpoint;
mod codec;
mod config;
mod diff;
mod export;
mod schema;
mod serve;
mod swap;
mod table;
mod topic;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::writer::Verify;
pub(super) use artifact::{
    AttestArgs, BundleArgs, CodecReportArgs, InspectRevocationsArgs, KeygenArgs, LoadBundleArgs, LockArgs,
    MirrorArgs, PolicyCheckArgs, PolicyCommand, PruneArgs, PullArgs, PullRevocationsArgs, PushArgs,
    PushRevocationsArgs, RegistryAccessArgs, RenewRevocationsArgs, ResolveArgs, RevocationsCommand,
    RevokeArgs, SignArgs, SignedListArgs, StoreCommand, VerifyCodecArgs,
};
pub(super) use checkpoint::{CheckpointArgs, CheckpointCommand};
pub(super) use codec::{
    BenchArgs, BuildArgs, CheckArgs, CodecCommand, CompileArgs, ComponentArgs, Function, InspectArgs,
    NewArgs, ReproduceArgs, RunArgs, TestArgs,
};
pub(super) use config::{CheckConfigArgs, ConfigCommand, ShowConfigArgs};
pub(super) use diff::DiffArgs;
pub(super) use export::{ExportArgs, ExportFormat};
pub(super) use schema::{
    CompatCommand, DeleteSchemaArgs, DiffSchemaArgs, GetSchemaArgs, IdsArgs, ListSchemasArgs, NewVersionArgs,
    RegistryArgs, SchemaCommand, Target, VersionsArgs,
};
pub use serve::LogFormat;
pub(super) use serve::{ServeArgs, TokenCommand};
pub(super) use swap::{ServerArgs, SwapArgs};
pub(super) use table::{EntryArgs, LogArgs, PropertyArgs, TableArgs};
pub(super) use topic::{DeleteTopicArgs, DescribeArgs, EnsureArgs, ListArgs, ProduceArgs, TopicCommand};
use values::parse_positive_duration;

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
  ktables serve --config ktables.toml

Exit codes:
  0  done
  1  the answer is no: something was not found, or was refused
  2  wrong arguments or configuration
  3  the environment failed, for example the log or a file, or the command was interrupted
  4  the table is degraded: the answer may be incomplete; or a write is not visible in time

Messages go to standard error. KTABLES_LOG filters them by level and target, for
example KTABLES_LOG=info or KTABLES_LOG=warn,ktables::guest=trace."
)]
pub struct Args {
    /// The format of answers [default: table on a terminal, json otherwise].
    #[arg(long, global = true, value_enum)]
    pub(super) output: Option<Format>,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Args {
    /// Parses the arguments of this process. Ends it if they are wrong, or ask for help.
    #[must_use]
    pub fn parse_own() -> Self {
        let matches = Self::definition().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Returns the definition of the command. `watch` has a `--key` of its own.
    pub(super) fn definition() -> clap::Command {
        Self::command().mut_subcommand("watch", |watch| watch.mut_arg("key_file", |key| key.long("cert-key")))
    }

    /// Whether the command reloads its configuration on SIGHUP, on which other commands end.
    #[must_use]
    pub fn reloads_on_hangup(&self) -> bool {
        matches!(self.command, Command::Serve(_))
    }

    /// Returns the lowest level that is logged by default, and the format of messages.
    #[must_use]
    pub fn logging(&self) -> (&'static str, LogFormat) {
        match &self.command {
            Command::Serve(args) => ("info", args.log_format),
            _ => ("warn", LogFormat::Text),
        }
    }
}

/// The format of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table, for people.
    Table,
    /// JSON, for programs: one value per line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Get(GetArgs),
    Keys(KeysArgs),
    Groups(GroupsArgs),
    Members(MembersArgs),
    Dump(DumpArgs),
    Diff(DiffArgs),
    Export(ExportArgs),
    Set(SetArgs),
    Delete(DeleteArgs),
    Import(ImportArgs),
    Watch(WatchArgs),
    Status(StatusArgs),
    Rejects(RejectsArgs),
    Produce(ProduceArgs),
    /// Create, list, describe and delete topics.
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Write, build and check codecs.
    #[command(subcommand)]
    Codec(CodecCommand),
    #[command(subcommand)]
    Policy(PolicyCommand),
    #[command(subcommand)]
    Config(ConfigCommand),
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// Inspect and remove checkpoints.
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    Serve(ServeArgs),
    Swap(SwapArgs),
    #[command(subcommand)]
    Token(TokenCommand),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables completions bash > ~/.local/share/bash-completion/completions/ktables
  ktables completions zsh > ~/.zfunc/_ktables
  ktables completions fish > ~/.config/fish/completions/ktables.fish")]
pub(super) struct CompletionsArgs {
    /// The shell.
    pub(super) shell: clap_complete::Shell,
}

/// Write the manual pages of all commands into a folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  ktables man /usr/local/share/man/man1")]
pub(super) struct ManArgs {
    /// The folder, which is created if it does not exist.
    #[arg(value_name = "DIR")]
    pub(super) folder: PathBuf,
}

/// Print the value of a key, or of a member of a group.
///
/// Exit code 1 if there is no such entry; 4 if the table is degraded, whether or not it has the entry.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables get billing --log dir:./data --topic services
  ktables get --in billing host-a -t services
  ktables get billing -t services --verbose")]
pub(super) struct GetArgs {
    #[command(flatten)]
    pub(super) entry: EntryArgs,
    /// Print an object: the entry, the partition, offset and timestamp of its record, the status of the
    /// table, and, if the newest record of the key was rejected, "rejected" with its position and the reason.
    #[arg(long)]
    pub(super) verbose: bool,
    /// Print the value of a key even if it has expired.
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
  ktables keys -t services --start a --end c --limit 10
  ktables keys -t services --in billing")]
pub(super) struct KeysArgs {
    /// Print only keys of members of this group.
    #[arg(long = "in", value_name = "GROUP")]
    pub(super) group: Option<String>,
    /// Print only keys with this prefix.
    #[arg(long, value_name = "PREFIX")]
    pub(super) prefix: Option<String>,
    /// Print only keys from this one on.
    #[arg(long, value_name = "KEY")]
    pub(super) start: Option<String>,
    /// Print only keys before this one.
    #[arg(long, value_name = "KEY")]
    pub(super) end: Option<String>,
    /// Print at most this many keys.
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
/// Exit code 1 if no member is found.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables members billing -t services
  ktables members billing -t services --prefix host-")]
pub(super) struct MembersArgs {
    /// The group.
    pub(super) group: String,
    /// Print only members with this prefix.
    #[arg(long, value_name = "PREFIX")]
    pub(super) prefix: Option<String>,
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Print all entries, ordered by key; expired entries come last.
///
/// As JSON, each line is {"key","value","partition","offset","timestamp"}. If the newest record of the key was
/// rejected, the line also has "rejected":{"partition","offset","kind","message"}.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables dump -t services > backup.ndjson
  ktables dump -t services | ktables import --log dir:./copy --topic services")]
pub(super) struct DumpArgs {
    /// Print expired entries, too, marked with "expired":true.
    #[arg(long)]
    pub(super) expired: bool,
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Set the value of a key, or of a member of a group.
///
/// Prints the partition and offset of the record once it is durable; with --heartbeat, those of each record.
/// A value whose encoded form does not decode to equal JSON is not published (see --verify).
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
    /// The value, as JSON; - reads it from standard input.
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    pub(super) value: String,
    #[command(flatten)]
    pub(super) verify: VerifyArgs,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
    /// Write the entry again at this interval until Ctrl-C or SIGTERM, or until the terminal is closed, and
    /// then delete it. For tables whose entries expire (ttl).
    #[arg(long, value_name = "TIME", value_parser = parse_positive_duration)]
    pub(super) heartbeat: Option<Duration>,
    /// Do not delete the entry when the heartbeats end.
    #[arg(long, requires = "heartbeat")]
    pub(super) keep: bool,
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// What to wait for after writing.
#[derive(Debug, clap::Args)]
pub(super) struct WaitArgs {
    /// Load the table, and wait until the write is visible in it. Exit code 4 if it is not visible within
    /// --catchup-timeout.
    #[arg(long)]
    pub(super) wait: bool,
}

/// How encoded values are verified before they are published.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// How to verify an encoded value before it is published [default: the configuration's, or equal].
    #[arg(long, value_enum)]
    pub(super) verify: Option<Verify>,
}

/// Delete a key, or a member of a group.
///
/// Writes a tombstone, and prints its partition and offset once it is durable.
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

/// Write many entries from standard input, as NDJSON.
///
/// Each line is {"key","value"}, or {"key","delete":true}. With a group scheme, "group" and "member" may
/// replace "key". The output of `dump` is accepted unchanged. Whenever the input pauses, the lines that were
/// read are written.
///
/// Each line that is not written is reported on standard error, with its number. At the end, the command
/// prints counts: "lines" that were read, and how many of them were "acknowledged", "refused" (not
/// acknowledged; after a failure of the log, they may have been written), "expired" (skipped), or "blank".
/// "interrupted" says whether it was stopped before the end of the input. Exit code 1 if any line was refused,
/// and 3 if the log failed or the command was stopped.
///
/// The first Ctrl-C stops reading, and waits until the lines that were read are acknowledged or refused. If
/// the cluster does not answer, that takes up to two minutes (delivery.timeout.ms). The second Ctrl-C gives
/// up the lines that are not acknowledged, and lists them, within seconds. The third one ends the command at
/// once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables import -t services < backup.ndjson
  ktables dump -t services | ktables import --log dir:./copy --topic services")]
pub(super) struct ImportArgs {
    #[command(flatten)]
    pub(super) verify: VerifyArgs,
    /// Also write entries that `dump --expired` marked as expired. Without this option, they are skipped.
    #[arg(long)]
    pub(super) expired: bool,
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Print the entries of the table, and then every change, as NDJSON.
///
/// First come the entries, as `dump` prints them but without "rejected", then {"event":"synced"}, then changes:
/// {"key","old","new","partition","offset","timestamp"}. If the entry was removed, the change has
/// "delete":true. After --resume, "old" may be null because it is unknown. If no accepted record made the
/// change, "cause" is rejected (with --on-reject remove), expired, revived (the clock was set back before the
/// expiry), retention (the log no longer has the record), generation or difference.
///
/// Lines with an "event" come between the changes. "rejected": a record was rejected; has "key" (null if
/// there is none or it cannot be decoded), "partition", "offset", "kind" and "message". "status": the status
/// of the table changed; has "status" and "reason". "generation": the topic was loaded again, because it was
/// created anew or truncated, and the new contents replace the old ones; has the number of the "generation".
/// "restarted": the command fell too far behind, and all entries follow
/// again, then "synced".
///
/// If the command falls a little behind, it prints the difference to the current entries, with
/// "cause":"difference". With --every, it prints "lagged" instead; "missed" counts the missed steps, in
/// each of which the table applied some changes at once.
///
/// The command runs until Ctrl-C or SIGTERM, or until its output is closed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables watch -t services
  ktables watch -t services --from-now | jq .new
  ktables watch -t services --in billing
  ktables watch -t services --resume services.token >> changes.ndjson")]
pub(super) struct WatchArgs {
    /// Print no entries at the start, only changes from now on. With --resume, only if FILE does not exist yet.
    #[arg(long)]
    pub(super) from_now: bool,
    /// Print every change, and a "lagged" event instead of the difference if the command falls behind.
    #[arg(long)]
    pub(super) every: bool,
    /// Continue after the last event that an earlier `watch` with this file and the same filter printed, and
    /// store the position in the file. An event counts as printed once it is in the pipe or file. After a
    /// crash, the events since the position was stored are printed again: those of the last second or, if it
    /// was listing entries, the whole list. If the changes since then are no longer available, print a
    /// "restarted" event and all entries.
    #[arg(long, value_name = "FILE")]
    pub(super) resume: Option<PathBuf>,
    /// Print only changes of this key.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["prefix", "group"])]
    pub(super) key: Option<String>,
    /// Print only changes of keys with this prefix.
    #[arg(long, value_name = "PREFIX", conflicts_with = "group")]
    pub(super) prefix: Option<String>,
    /// Print only changes of members of this group.
    #[arg(long = "in", value_name = "GROUP")]
    pub(super) group: Option<String>,
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Print the status of the table, its counts, and its positions and lag in each partition.
///
/// Exit code 4 if the table is degraded.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables status -t services")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Print the newest rejected records, at most 1,000 and at most 16 MiB, or retry dead letters.
///
/// "raw" holds the bytes of the rejected key or value, as base64: the first 16 KiB. "raw_len" is the length of
/// the whole key or value, in bytes.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  ktables rejects -t services | jq -r .raw | head -1 | base64 -d | xxd
  ktables rejects -t services --prefix bill
  ktables rejects -t services --export cases/
  ktables rejects retry -t services"
)]
pub(super) struct RejectsArgs {
    #[command(subcommand)]
    pub(super) command: Option<RejectsCommand>,
    #[command(flatten)]
    pub(super) list: ListRejectsArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum RejectsCommand {
    Retry(Box<RetryArgs>),
}

/// Retry dead letters: decode them with the codecs of the table, and publish those that are accepted.
///
/// The table needs a dead-letter topic. A record is published unchanged, to its partition of the topic of the table,
/// unless the topic has a newer record of its key, even one that is rejected. Nothing is removed from the dead-letter
/// topic; a record that was published is skipped the next time.
///
/// Prints a line for each dead letter: "partition", "offset" and "key" of the rejected record; "outcome": published,
/// rejected (the codecs still reject it, the topic refuses it, or others keep writing to its partition), or skipped (its
/// key is null, foreign to the group scheme, or has a newer record; or its topic was deleted); "published_offset"; and
/// "reason", if it was not published. The last line counts the outcomes. Exit code 1 if any was rejected.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables rejects retry -t services
  ktables rejects retry -t services --value-codec repaired.wasm")]
pub(super) struct RetryArgs {
    /// Publish records even if their keys have newer records. Applies to all dead letters of the table, also to those that
    /// an earlier retry has published.
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) table: TableArgs,
}

/// Which rejected records are printed.
#[derive(Debug, clap::Args)]
pub(super) struct ListRejectsArgs {
    /// Write a case for each record that a component rejected into this folder, instead of printing it: the record, the
    /// reason, and the digest, the configuration and the limits of the component. `ktables codec reproduce` tries a case
    /// with a component. The configuration may hold secrets.
    #[arg(long, value_name = "DIR")]
    pub(super) export: Option<PathBuf>,
    /// Print only records of keys with this prefix.
    #[arg(long, value_name = "PREFIX")]
    pub(super) prefix: Option<String>,
    /// Print only records of members of this group.
    #[arg(long = "in", value_name = "GROUP")]
    pub(super) group: Option<String>,
    #[command(flatten)]
    pub(super) table: TableArgs,
}
