//! The arguments of commands that talk to a server.

use std::path::PathBuf;

/// A server. Its token is never an argument: other users of this machine may see arguments.
#[derive(Debug, Clone, Default, clap::Args)]
pub(in crate::cli) struct ServerArgs {
    /// The address of a server, for example http://127.0.0.1:7470 [default: $KTABLES_SERVER].
    #[arg(long, value_name = "URL", help_heading = "Server")]
    pub(in crate::cli) server: Option<String>,
    /// A file with the token [default: the token in $KTABLES_TOKEN, if it is set].
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub(in crate::cli) token_file: Option<PathBuf>,
    /// A PEM file with the authorities of the server's certificate [default: those of the system].
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub(in crate::cli) ca: Option<PathBuf>,
    /// A PEM file with the certificate that proves who this client is, and its chain.
    #[arg(long, value_name = "FILE", help_heading = "Server", requires = "key_file")]
    pub(in crate::cli) cert: Option<PathBuf>,
    /// A PEM file with the key of that certificate.
    #[arg(id = "key_file", long = "key", value_name = "FILE", help_heading = "Server", requires = "cert")]
    pub(in crate::cli) key_file: Option<PathBuf>,
}

/// Swap the codecs of a table of a running server.
///
/// The server loads the topic with the new codec, compares the contents with what it serves, and prints the report. It
/// then serves the new codec, unless that rejects more keys than --max-new-rejects or changes more than --max-changed.
/// Readers switch at once, and watchers receive the difference. The swap lasts until the server is started again or
/// its configuration is reloaded: the file stays as it is.
///
/// Exit code 1 if the swap is refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables swap services --value-codec new.wasm --dry-run
  ktables swap services --value-codec new.wasm --max-changed 0
  ktables swap services --back")]
pub(in crate::cli) struct SwapArgs {
    /// The name of the table in the configuration of the server.
    #[arg(value_name = "TABLE")]
    pub(in crate::cli) table: String,
    /// The new codec of values: a component file, or the name of a codec of the server's configuration.
    #[arg(long, value_name = "CODEC", group = "new")]
    pub(in crate::cli) value_codec: Option<String>,
    /// The new codec of keys.
    #[arg(long, value_name = "CODEC", group = "new")]
    pub(in crate::cli) key_codec: Option<String>,
    /// The new group scheme.
    #[arg(long, value_name = "SCHEME", group = "new")]
    pub(in crate::cli) group_scheme: Option<String>,
    /// Serve the codecs again that were served before the last swap.
    #[arg(long, group = "new")]
    pub(in crate::cli) back: bool,
    /// Report only.
    #[arg(long, conflicts_with = "back")]
    pub(in crate::cli) dry_run: bool,
    /// How many keys may be rejected that are not rejected now.
    #[arg(long, value_name = "KEYS", default_value = "0", conflicts_with = "back")]
    pub(in crate::cli) max_new_rejects: u64,
    /// How many keys may change otherwise [default: any number].
    #[arg(long, value_name = "KEYS", conflicts_with = "back")]
    pub(in crate::cli) max_changed: Option<u64>,
    /// Swap whatever it rejects or changes.
    #[arg(long, conflicts_with_all = ["back", "max_changed"])]
    pub(in crate::cli) yes: bool,
    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}
