//! The `ktables` command: its arguments, its configuration, and its subcommands.
//!
//! Answers go to standard output, everything else to standard error. A command ends with an [`Exit`] or a
//! [`CliError`]; both have an exit code.

mod args;
mod artifact;
mod bench_codec;
mod cases;
mod check_codec;
mod checkpoint;
mod codec;
mod config;
mod diff;
mod error;
mod export;
mod export_format;
mod follow;
mod import;
mod limits;
mod lines;
mod logging;
mod logs;
mod new_codec;
mod open;
mod output;
mod produce;
mod progress;
mod read;
mod records;
mod remote;
mod retry;
mod run_codec;
mod samples;
mod schema;
mod serve;
mod stop;
mod swap;
mod test_codec;
mod token_file;
mod topic;
mod write;

use std::io::Write;
use std::time::Duration;

use tokio::sync::watch;

pub use args::{Args, LogFormat};
pub use codec::run_as_child;
pub use error::{CliError, Exit};
pub use logging::{log_failure, start_logging};

pub use crate::config::{BundledCodec, register_bundled_codecs};

use crate::file::FileError;
use args::{
    CheckpointCommand, CodecCommand, Command, ConfigCommand, PolicyCommand, RejectsArgs, RejectsCommand,
    TokenCommand, TopicCommand,
};
use output::Output;

/// How long `watch` may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of times that the command was asked to stop.
type StopRequests = watch::Receiver<u8>;

/// Runs a command until it is done. Each time `shutdown` resolves, the command is asked to stop, and `shutdown`
/// is called again, three times at most.
///
/// `watch` and commands that write nothing stop after the first request. `import` and `set --heartbeat` then
/// finish their pending writes, and give them up after the second one. `serve` finishes its requests, and ends at once
/// after the second one. Other commands that write give up
/// after the first one. A command that gives up reports the writes that were not acknowledged. The third
/// request ends it at once.
///
/// # Errors
///
/// [`CliError`] if the arguments or the configuration are wrong, a write was refused or is not visible in time,
/// the environment failed, or the command was interrupted. [`CliError::code`] is the exit code.
pub async fn run(args: Args, shutdown: impl AsyncFn()) -> Result<Exit, CliError> {
    let on_shutdown = OnShutdown::of_command(&args.command);
    let (stop, stop_requests) = watch::channel(0);
    // The command has its own task, so that the shutdown is noticed even while the command blocks on its
    // output.
    let mut command = tokio::spawn(dispatch(args, stop_requests));
    let result = tokio::select! {
        result = &mut command => result,
        () = shutdown() => match on_shutdown {
            OnShutdown::Stop => {
                stop.send_replace(1);
                match tokio::time::timeout(STOP_TIMEOUT, &mut command).await {
                    Ok(result) => result,
                    // It blocks, because nobody reads its output.
                    Err(_) => return Ok(Exit::Done),
                }
            }
            OnShutdown::Abort => return Err(CliError::Interrupted),
            OnShutdown::Finish => {
                stop.send_replace(1);
                let further_requests = async {
                    shutdown().await;
                    stop.send_replace(2);
                    shutdown().await;
                };
                tokio::select! {
                    result = command => result,
                    () = further_requests => return Err(CliError::Interrupted),
                }
            }
        },
    };
    // OK because the task is never cancelled: the error is a panic, which continues here.
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Runs the command that the arguments name.
async fn dispatch(args: Args, stop_requests: StopRequests) -> Result<Exit, CliError> {
    let output = Output::new(args.output);
    match args.command {
        Command::Get(args) => read::get(args, output).await,
        Command::Keys(args) => read::keys(args, output).await,
        Command::Groups(args) => read::groups(args, output).await,
        Command::Members(args) => read::members(args, output).await,
        Command::Dump(args) => read::dump(args, output).await,
        Command::Export(args) => export::export(args, stop_requests).await,
        Command::Diff(args) => diff::diff(args, output).await,
        Command::Status(args) => read::status(args, output).await,
        Command::Rejects(RejectsArgs { command: Some(RejectsCommand::Retry(args)), .. }) => {
            retry::retry(*args, output, stop_requests).await
        }
        Command::Rejects(args) => read::rejects(args.list, output).await,
        Command::Watch(args) => follow::watch(args, output, stop_requests).await,
        Command::Set(args) => write::set(args, output, stop_requests).await,
        Command::Delete(args) => write::delete(args, output, stop_requests).await,
        Command::Import(args) => import::import(args, output, stop_requests).await,
        Command::Produce(args) => produce::produce(args, output, stop_requests).await,
        Command::Topic(TopicCommand::Ensure(args)) => topic::ensure(args, output).await,
        Command::Topic(TopicCommand::List(args)) => topic::list(args, output).await,
        Command::Topic(TopicCommand::Describe(args)) => topic::describe(args, output).await,
        Command::Topic(TopicCommand::Delete(args)) => topic::delete(args).await,
        Command::Policy(PolicyCommand::Check(args)) => artifact::check_policy(args, output).await,
        Command::Codec(command) => dispatch_codec(command, output).await,
        Command::Config(ConfigCommand::Check(args)) => config::check(args, output).await,
        Command::Config(ConfigCommand::Show(args)) => config::show(&args, output),
        Command::Config(ConfigCommand::Schema(_)) => config::schema(output),
        Command::Checkpoint(CheckpointCommand::Inspect(args)) => checkpoint::inspect(&args, output),
        Command::Checkpoint(CheckpointCommand::Remove(args)) => checkpoint::remove(&args),
        Command::Serve(args) => serve::serve(args, stop_requests).await,
        Command::Swap(args) => swap::swap(args, output, stop_requests).await,
        Command::Schema(command) => schema::run(command, output).await,
        Command::Token(TokenCommand::New(_)) => serve::new_token(output),
        Command::Man(args) => {
            std::fs::create_dir_all(&args.folder)
                .and_then(|()| clap_mangen::generate_to(Args::definition(), &args.folder))
                .map_err(FileError::of::<CliError>("write manual pages into", &args.folder))?;
            Ok(Exit::Done)
        }
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Args::definition(), "ktables", &mut script);
            let mut out = output.writer();
            out.write_all(&script)?;
            out.flush()?;
            Ok(Exit::Done)
        }
    }
}

/// Runs a command of `codec`.
async fn dispatch_codec(command: CodecCommand, output: Output) -> Result<Exit, CliError> {
    match command {
        CodecCommand::New(args) => new_codec::create(&args, output),
        CodecCommand::Inspect(args) => codec::inspect(&args, output),
        CodecCommand::Build(args) => codec::build(&args, output),
        CodecCommand::Compile(args) => codec::compile(args, output).await,
        CodecCommand::Push(args) => artifact::push(args, output).await,
        CodecCommand::Pull(args) => artifact::pull(args, output).await,
        CodecCommand::Resolve(args) => artifact::resolve(args, output).await,
        CodecCommand::Lock(args) => artifact::lock(args, output).await,
        CodecCommand::Keygen(args) => artifact::keygen(&args, output),
        CodecCommand::Sign(args) => artifact::sign(args, output).await,
        CodecCommand::Attest(args) => artifact::attest(args, output).await,
        CodecCommand::Revoke(args) => artifact::revoke(&args, output),
        CodecCommand::Revocations(command) => artifact::revocations(command, output).await,
        CodecCommand::Report(args) => artifact::report(args, output).await,
        CodecCommand::Verify(args) => artifact::verify(args, output).await,
        CodecCommand::Mirror(args) => artifact::mirror(args, output).await,
        CodecCommand::Bundle(args) => artifact::bundle(args, output).await,
        CodecCommand::Load(args) => artifact::load(args, output).await,
        CodecCommand::Store(command) => artifact::store(command, output),
        CodecCommand::Wit => codec::wit(output),
        CodecCommand::Check(args) => check_codec::check(args, output).await,
        CodecCommand::Test(args) => test_codec::test(args, output).await,
        CodecCommand::Run(args) => run_codec::run(args, output).await,
        CodecCommand::Reproduce(args) => cases::reproduce(args, output).await,
        CodecCommand::Bench(args) => bench_codec::bench(args, output).await,
    }
}

/// What a command does when the first shutdown request (Ctrl-C) arrives.
enum OnShutdown {
    /// Stops, and succeeds: it runs until it is stopped.
    Stop,
    /// Fails with [`CliError::Interrupted`].
    Abort,
    /// Finishes its pending writes or gives them up, and reports their results.
    Finish,
}

impl OnShutdown {
    fn of_command(command: &Command) -> Self {
        match command {
            Command::Watch(_) => Self::Stop,
            Command::Set(_)
            | Command::Delete(_)
            | Command::Import(_)
            | Command::Produce(_)
            | Command::Serve(_)
            | Command::Swap(_)
            | Command::Export(_)
            | Command::Rejects(RejectsArgs { command: Some(RejectsCommand::Retry(_)), .. }) => Self::Finish,
            _ => Self::Abort,
        }
    }
}
