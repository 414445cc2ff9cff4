//! The arguments of the commands `checkpoint` and `codec`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CheckpointCommand {
    /// Print a summary of a checkpoint, and verify every byte of it.
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

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CodecCommand {
    Inspect(InspectArgs),
    Build(BuildArgs),
    /// Print the WIT package that components are built against, as one file.
    #[command(after_help = "Example:\n  ktables codec wit > ktables.wit")]
    Wit,
}

/// Describe a component, and check whether it is accepted as a codec.
///
/// Prints its digest, its kinds of codec, its description of itself, and each import with the reason why it is
/// allowed or not. `sandbox` is `pure`, or `sealed WASI` if the component imports WASI.
///
/// Exit code 1 if the component is refused. The reasons are printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables codec inspect service.wasm")]
pub(in crate::cli) struct InspectArgs {
    /// The component file.
    #[arg(value_name = "FILE.wasm")]
    pub(in crate::cli) file: PathBuf,
}

/// Build a component from a core module that exports functions of the WIT package.
///
/// The module needs no description of its interfaces: the names of its exports say which ones it implements, for
/// example `ktables:codec/value-codec@0.1.0#decode`. If an export is missing or has a wrong name or type, the
/// error says what to write. `codec wit` prints the package.
///
/// Imports of WASI preview 1, which the runtimes of C and Go have, are replaced by functions that read nothing: there
/// are no files and no environment variables, the clock counts, random numbers have a fixed seed, and an exit is a
/// trap. What the module prints goes to the log of the host, and explains its faults.
///
/// Exit code 1 if the imports or exports of the component would be refused, and 2 if the module is malformed,
/// exceeds a limit or cannot be made a component. Then no file is written. `codec inspect` checks the rest.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo build --release --target wasm32-unknown-unknown
  ktables codec build target/wasm32-unknown-unknown/release/my_codec.wasm -o my_codec.wasm
  ktables codec build go.wasm -o codec.wasm")]
pub(in crate::cli) struct BuildArgs {
    /// The file of the core module.
    #[arg(value_name = "CORE.wasm")]
    pub(in crate::cli) core: PathBuf,
    /// The file that the component is written to.
    #[arg(short, long = "out", value_name = "FILE.wasm")]
    pub(in crate::cli) out: PathBuf,
}
