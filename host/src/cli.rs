//! The `ktables` command: arguments, configuration, and what each command does
//! with the library.
//!
//! Answers go to standard output, everything else to standard error. A command
//! ends with an [`Exit`] or a [`CliError`]; both have an exit code.

mod args;
mod checkpoint;
mod codec;
mod config;
mod error;
mod follow;
mod import;
mod logging;
mod logs;
mod open;
mod output;
mod progress;
mod read;
mod topic;
mod write;

use std::time::Duration;

use tokio::sync::watch;

pub use args::Args;
pub use codec::run_as_child;
pub use error::{CliError, Exit};
pub use logging::{log_failure, start_logging};

use args::{CheckpointCommand, CodecCommand, Command, TopicCommand};
use output::Output;

/// How long a command that runs until Ctrl-C may take to end.
const GRACE: Duration = Duration::from_secs(1);

/// How often the command was told to end.
type Stopping = watch::Receiver<u8>;

/// Runs a command until it is done, or until `shutdown` resolves. A command that
/// writes then finishes what it has begun, or says what was not acknowledged; it ends
/// in any case when `shutdown` resolves a third time.
///
/// # Errors
///
/// [`CliError`] if the arguments are of no use or the environment failed.
pub async fn run(args: Args, shutdown: impl AsyncFn()) -> Result<Exit, CliError> {
    let end = OnShutdown::of(&args.command);
    let (stop, stopping) = watch::channel(0);
    // A task of its own, so that a command that blocks on its output does not keep
    // anybody from seeing the shutdown.
    let mut command = tokio::spawn(dispatch(args, stopping));
    let ended = tokio::select! {
        ended = &mut command => ended,
        () = shutdown() => match end {
            OnShutdown::Done => {
                stop.send_replace(1);
                // It may be blocked by whoever reads its output.
                let _ = tokio::time::timeout(GRACE, command).await;
                return Ok(Exit::Done);
            }
            OnShutdown::Interrupted => return Err(CliError::Interrupted),
            OnShutdown::Finish => {
                stop.send_replace(1);
                let insist = async {
                    shutdown().await;
                    stop.send_replace(2);
                    shutdown().await;
                };
                tokio::select! {
                    ended = command => ended,
                    () = insist => return Err(CliError::Interrupted),
                }
            }
        },
    };
    // The task is not cancelled, so this is a panic: go on with it.
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

async fn dispatch(args: Args, stopping: Stopping) -> Result<Exit, CliError> {
    let output = Output::new(args.output);
    match args.command {
        Command::Get(args) => read::get(args, output).await,
        Command::Keys(args) => read::keys(args, output).await,
        Command::Groups(args) => read::groups(args, output).await,
        Command::Members(args) => read::members(args, output).await,
        Command::Dump(args) => read::dump(args, output).await,
        Command::Status(args) => read::status(args, output).await,
        Command::Rejects(args) => read::rejects(args, output).await,
        Command::Watch(args) => follow::watch(args, output, stopping).await,
        Command::Set(args) => write::set(args, output, stopping).await,
        Command::Delete(args) => write::delete(args, output, stopping).await,
        Command::Import(args) => import::import(args, output, stopping).await,
        Command::Produce(args) => topic::produce(args, output, stopping).await,
        Command::Topic(TopicCommand::Ensure(args)) => topic::ensure(args, output).await,
        Command::Topic(TopicCommand::Describe(args)) => topic::describe(args, output).await,
        Command::Codec(CodecCommand::Inspect(args)) => codec::inspect(&args, output),
        Command::Codec(CodecCommand::Build(args)) => codec::build(&args),
        Command::Checkpoint(CheckpointCommand::Inspect(args)) => checkpoint::inspect(&args, output),
        Command::Checkpoint(CheckpointCommand::Remove(args)) => checkpoint::remove(&args),
    }
}

/// What Ctrl-C means to a command.
enum OnShutdown {
    /// It goes on for ever, and this is its end.
    Done,
    /// It is left undone.
    Interrupted,
    /// It has begun to write: it says what became of it.
    Finish,
}

impl OnShutdown {
    fn of(command: &Command) -> Self {
        match command {
            Command::Watch(_) => Self::Done,
            Command::Set(_) | Command::Delete(_) | Command::Import(_) | Command::Produce(_) => Self::Finish,
            _ => Self::Interrupted,
        }
    }
}

/// Reads a configuration's text, for fuzzers.
#[cfg(any(feature = "fuzzing", all(test, feature = "cli")))]
pub(crate) fn parse_configuration(text: &str) {
    // Either is an answer.
    let _ = config::Config::parse(text, |name| (name == "SET").then(|| "${SET}".to_owned()));
}
