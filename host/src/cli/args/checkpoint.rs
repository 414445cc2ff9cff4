//! The arguments of the commands `checkpoint`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CheckpointCommand {
    /// Print a summary of a checkpoint, after checking all its checksums.
    ///
    /// "headers" says whether it keeps headers, which it does if the value codec needs them. "records" also
    /// counts records of which it has a newer one, until they are compacted away.
    ///
    /// Exit code 1 if the checkpoint is damaged or does not exist.
    #[command(after_help = "Example:\n  ktables checkpoint inspect ./checkpoints/services")]
    Inspect(CheckpointArgs),
    /// Remove a checkpoint. The next table replays the whole topic.
    ///
    /// Exit code 1 if the checkpoint does not exist.
    #[command(after_help = "Example:\n  ktables checkpoint remove ./checkpoints/services")]
    Remove(CheckpointArgs),
}

/// A checkpoint.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CheckpointArgs {
    /// The folder of the checkpoint.
    #[arg(value_name = "DIR")]
    pub(in crate::cli) folder: PathBuf,
}
