//! The `ktables` command.

use std::io::{IsTerminal, Write, stderr};
use std::process::ExitCode;

use clap::Parser;
use ktables::cli::{Args, CliError, run};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Of the allocators that were tried, the one with the fastest replay (see
/// docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    start_tracing();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}"), 3),
    };
    let result = runtime.block_on(run(args, shutdown));
    // A blocked read of standard input must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.code().into(),
        Err(error) if error.code() == 0 => ExitCode::SUCCESS,
        Err(CliError::Interrupted) => ExitCode::from(CliError::Interrupted.code()),
        Err(error) => fail(&error.to_string(), error.code()),
    }
}

/// Resolves on Ctrl-C or a request to end.
async fn shutdown() {
    let wait = async |kind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        // Without a handler the system's default ends the process.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
}

fn start_tracing() {
    // What a component says while it fails stands with the rejected record.
    let filter = std::env::var("KTABLES_LOG").unwrap_or_else(|_| "warn,ktables::guest=off".to_owned());
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).parse_lossy(filter);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
}

fn fail(message: &str, code: u8) -> ExitCode {
    // Nothing is left to tell anybody if this fails.
    let _ = writeln!(stderr(), "error: {message}");
    code.into()
}
