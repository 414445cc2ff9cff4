//! The arguments that compare codecs.

use super::TableArgs;

/// Compare what a table holds with what it would hold with other codecs.
///
/// Loads the topic with both. Prints one object: how many keys are equal, changed, moved to another group, newly
/// rejected or newly accepted, with examples. Exit code 1 if there is any difference.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables diff --value-codec old.wasm --against-value-codec new.wasm --log dir:./data --topic services
  ktables diff -t services --against-value-codec new.wasm")]
pub(in crate::cli) struct DiffArgs {
    /// The other codec of keys [default: the same].
    #[arg(long, value_name = "CODEC")]
    pub(in crate::cli) against_key_codec: Option<String>,
    /// The other codec of values [default: the same].
    #[arg(long, value_name = "CODEC")]
    pub(in crate::cli) against_value_codec: Option<String>,
    /// The other group scheme [default: the same].
    #[arg(long, value_name = "SCHEME")]
    pub(in crate::cli) against_group_scheme: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) table: TableArgs,
}
