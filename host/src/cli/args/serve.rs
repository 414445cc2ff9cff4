//! The arguments of the server, and of its tokens.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

/// Serve the tables of a configuration over HTTP.
///
/// Listens on 127.0.0.1:7470 unless the section [server] of the configuration says otherwise. `GET
/// /openapi.json` describes the API. SIGTERM or Ctrl-C stops the server: it answers what it has begun, and ends within
/// server.shutdown_timeout; a second one ends it at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables serve --config ktables.toml
  curl localhost:7470/v1/tables/services/entry?key=billing
  curl -N localhost:7470/v1/tables/services/watch")]
pub(in crate::cli) struct ServeArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "ktables.toml")]
    pub(in crate::cli) config: PathBuf,
    /// Let other machines connect without TLS, for example behind a proxy that adds it.
    #[arg(long)]
    pub(in crate::cli) insecure: bool,
    /// The format of messages.
    #[arg(long, value_enum, default_value = "text")]
    pub(in crate::cli) log_format: LogFormat,
}

/// The format of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line of text, for people.
    #[default]
    Text,
    /// A line of JSON, for programs.
    Json,
}

/// Create tokens for the clients of a server.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokenCommand {
    New(NewTokenArgs),
}

/// Create a token, and print it with its hash.
///
/// The client sends the token. The configuration of the server has only its hash: [access.clients.NAME] token_sha256.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables token new --output json")]
pub(in crate::cli) struct NewTokenArgs {}
