//! The arguments that write a table to a file.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::TableArgs;
use crate::cli::args::values::parse_positive_duration;

/// Write a table to a file, for programs that cannot call an API.
///
/// The file is replaced in one step, when its new contents are complete. With --follow, it is replaced again whenever the
/// table changes, until the command is stopped. A table that is incomplete replaces nothing, unless with
/// --allow-degraded.
///
/// Exit code 1 if a key or a value does not fit the format; the rest is written. 4 if the table is degraded.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables export -t services --out services.json
  ktables export -t targets --out targets.json --format prometheus-sd --follow
  ktables export -t flags --out flags.env --format env --follow --exec 'systemctl reload app'")]
pub(in crate::cli) struct ExportArgs {
    /// The file.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) out: PathBuf,
    /// The format of the file.
    #[arg(long, value_enum, default_value = "object")]
    pub(in crate::cli) format: ExportFormat,
    /// Replace the file whenever the table changes.
    #[arg(long)]
    pub(in crate::cli) follow: bool,
    /// A command to run each time the file was replaced. It is split into words, and runs without a shell. If it fails,
    /// it runs again after the next change.
    #[arg(long, value_name = "COMMAND")]
    pub(in crate::cli) exec: Option<String>,
    /// How long the command may run before it is killed.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_positive_duration, requires = "exec")]
    pub(in crate::cli) exec_timeout: Duration,
    /// Replace the file although the table may be incomplete.
    #[arg(long)]
    pub(in crate::cli) allow_degraded: bool,
    #[command(flatten)]
    pub(in crate::cli) table: TableArgs,
}

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ExportFormat {
    /// One JSON object: the value of each key.
    Object,
    /// A line of JSON for each entry, as `dump` prints it.
    Ndjson,
    /// Targets for Prometheus' file_sd_configs: each value is an object with `targets`, and perhaps `labels`.
    PrometheusSd,
    /// Lines NAME='VALUE' for a shell. Keys must be names: letters, digits and `_`, and no digit first.
    Env,
}
