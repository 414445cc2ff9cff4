//! The `ktables` command.

use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use ktables::cli::{Args, CliError, log_failure, run, run_as_child, start_logging};
use tokio::signal::unix::{SignalKind, signal};

/// Of the allocators that were tried, the one with the fastest replay (see
/// docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The stacks of the runtime's threads, whatever `RUST_MIN_STACK` says: Rust's default.
const THREAD_STACK_BYTES: usize = 2 << 20;

fn main() -> ExitCode {
    if let Some(code) = run_as_child() {
        return code.into();
    }
    let args = Args::parse();
    start_logging();
    if let Err(error) = check_files() {
        log_failure(&format!("cannot start: {error}"));
        return 3.into();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(THREAD_STACK_BYTES)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            log_failure(&format!("cannot start the runtime: {error}"));
            return 3.into();
        }
    };
    let result = runtime.block_on(run(args, shutdown));
    // A blocked read of standard input must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.code().into(),
        Err(error) => {
            if !matches!(error, CliError::Interrupted) {
                log_failure(&error.to_string());
            }
            error.code().into()
        }
    }
}

/// Fails if too few files can be opened for the runtime, which would panic.
fn check_files() -> std::io::Result<()> {
    // The runtime needs two files for polling and four for signals.
    let pairs: Result<Vec<_>, _> = (0..3).map(|_| UnixStream::pair()).collect();
    pairs.map(drop)
}

/// Resolves on Ctrl-C, on a request to end, or when the terminal is gone.
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
        () = wait(SignalKind::hangup()), if may_hang_up() => HUNG_UP.store(true, Ordering::Relaxed),
    }
}

/// Whether SIGHUP came.
static HUNG_UP: AtomicBool = AtomicBool::new(false);

/// Whether SIGHUP counts as a request to end. A closed terminal sends it twice, by its shell and by
/// the kernel: the second must not cut short what the first began.
fn may_hang_up() -> bool {
    !HUNG_UP.load(Ordering::Relaxed) && !is_ignored(SignalKind::hangup())
}

/// Whether a signal was ignored when the process started, as under `nohup`. On Linux only.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (kind.as_raw_value() - 1)) != 0)
}
