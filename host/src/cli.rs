//! The `ktables` command: arguments, configuration, and what each command does
//! with the library.
//!
//! Answers go to standard output, everything else to standard error. A command
//! ends with an [`Exit`] or a [`CliError`]; both have an exit code.

mod args;
mod codec;
mod config;
mod error;
mod follow;
mod open;
mod output;
mod progress;
mod read;
mod topic;
mod write;

use tokio::sync::watch;

pub use args::Args;
pub use error::{CliError, Exit};

use args::{CodecCommand, Command, TopicCommand};
use output::Output;

/// Runs a command until it is done, or until `shutdown` resolves; a command that
/// finishes what it has begun, until it resolves a second time.
///
/// # Errors
///
/// [`CliError`] if the arguments are of no use or the environment failed.
pub async fn run(args: Args, shutdown: impl AsyncFn()) -> Result<Exit, CliError> {
    let end = OnShutdown::of(&args.command);
    let (stop, stopping) = watch::channel(false);
    // A task of its own, so that a command that blocks on its output does not keep
    // anybody from seeing the shutdown.
    let mut command = tokio::spawn(dispatch(args, stopping));
    let ended = tokio::select! {
        ended = &mut command => ended,
        () = shutdown() => match end {
            OnShutdown::Done => return Ok(Exit::Done),
            OnShutdown::Interrupted => return Err(CliError::Interrupted),
            OnShutdown::Finish => {
                stop.send_replace(true);
                tokio::select! {
                    ended = command => ended,
                    () = shutdown() => return Err(CliError::Interrupted),
                }
            }
        },
    };
    // The task is not cancelled, so this is a panic: go on with it.
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

async fn dispatch(args: Args, stopping: watch::Receiver<bool>) -> Result<Exit, CliError> {
    let output = Output::new(args.output);
    match args.command {
        Command::Get(args) => read::get(args, output).await,
        Command::Keys(args) => read::keys(args, output).await,
        Command::Groups(args) => read::groups(args, output).await,
        Command::Members(args) => read::members(args, output).await,
        Command::Dump(args) => read::dump(args, output).await,
        Command::Status(args) => read::status(args, output).await,
        Command::Rejects(args) => read::rejects(args, output).await,
        Command::Watch(args) => follow::watch(args, output).await,
        Command::Set(args) => write::set(args, output).await,
        Command::Delete(args) => write::delete(args, output).await,
        Command::Import(args) => write::import(args, output, stopping).await,
        Command::Produce(args) => topic::produce(args, output).await,
        Command::Topic(TopicCommand::Ensure(args)) => topic::ensure(args, output).await,
        Command::Topic(TopicCommand::Describe(args)) => topic::describe(args, output).await,
        Command::Codec(CodecCommand::Inspect(args)) => codec::inspect(&args, output),
        Command::Codec(CodecCommand::Build(args)) => codec::build(&args),
    }
}

/// What Ctrl-C means to a command.
enum OnShutdown {
    /// It goes on for ever, and this is its end.
    Done,
    /// It is left undone.
    Interrupted,
    /// It finishes what it has begun and says how far it came.
    Finish,
}

impl OnShutdown {
    fn of(command: &Command) -> Self {
        match command {
            Command::Watch(_) => Self::Done,
            Command::Import(_) => Self::Finish,
            _ => Self::Interrupted,
        }
    }
}
