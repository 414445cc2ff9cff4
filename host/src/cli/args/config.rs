//! The arguments of `config`.

use std::path::PathBuf;

use clap::Subcommand;

/// Check and show configurations, and print their schema.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigCommand {
    Check(CheckConfigArgs),
    Show(ShowConfigArgs),
    Schema(ConfigSchemaArgs),
}

/// Check a configuration: every log, codec and table, the server, and who has access. Of each, the first problem is reported.
///
/// Loads all codecs, and waits for no broker. Prints each problem on standard error, and at the end how many there are.
/// Exit code 2 if there are any.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables config check --config ktables.toml")]
pub(in crate::cli) struct CheckConfigArgs {
    #[command(flatten)]
    pub(in crate::cli) file: ConfigFileArgs,
    /// Accept a server that other machines can reach without TLS, as `serve --insecure` does.
    #[arg(long)]
    pub(in crate::cli) insecure: bool,
}

/// Print a configuration as it is in effect, as TOML: with all defaults and with absolute paths.
///
/// Secrets are hidden: settings that are named like one (password, token, ...). What properties and the configurations of
/// codecs take from environment variables and files is shown as it is written.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables config show --config ktables.toml")]
pub(in crate::cli) struct ShowConfigArgs {
    #[command(flatten)]
    pub(in crate::cli) file: ConfigFileArgs,
}

/// Print the JSON Schema of configurations, for editors.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  ktables config schema > ktables.schema.json
Then begin the configuration with this line, which editors with a TOML language server read:
  #:schema ./ktables.schema.json")]
pub(in crate::cli) struct ConfigSchemaArgs {}

/// The file of a configuration.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ConfigFileArgs {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = "ktables.toml")]
    pub(in crate::cli) config: PathBuf,
}
