//! The `ktables` command.

use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use ktables::cli::{
    Args, BundledCodec, CliError, log_failure, register_bundled_codecs, run, run_as_child, start_logging,
};
use tokio::signal::unix::{SignalKind, signal};

/// The allocator with the fastest replay of those that were tried (see docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The codecs that are part of this program.
static CODECS: &[BundledCodec] = include!(concat!(env!("OUT_DIR"), "/codecs.rs"));

/// The stack size of the runtime's threads: Rust's default. It is set so that `RUST_MIN_STACK` does not
/// change it.
const THREAD_STACK_BYTES: usize = 2 << 20;

fn main() -> ExitCode {
    if let Some(code) = run_as_child() {
        return code.into();
    }
    register_bundled_codecs(CODECS);
    let args = Args::parse_own();
    start_logging(args.logging());
    if let Err(error) = check_file_limit() {
        log_failure(&format!(
            "cannot start, because the files that the runtime needs cannot be opened: {error} (see ulimit -n)"
        ));
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
    let ends_on_hangup = !args.reloads_on_hangup();
    let result = runtime.block_on(run(args, async || wait_for_shutdown(ends_on_hangup).await));
    // A blocked read of standard input must not delay the exit.
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

/// Fails if the process may not open as many files as the runtime needs: the runtime would panic.
fn check_file_limit() -> std::io::Result<()> {
    // The runtime needs two files for polling and four for signals.
    let pairs: Result<Vec<_>, _> = (0..3).map(|_| UnixStream::pair()).collect();
    pairs.map(drop)
}

/// Waits for a signal that stops the command: SIGINT (Ctrl-C), SIGTERM, and, with `ends_on_hangup`, SIGHUP (the
/// terminal was closed).
async fn wait_for_shutdown(ends_on_hangup: bool) {
    let wait = async |kind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        // Without a handler, the system's default action ends the process.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::hangup()), if ends_on_hangup && is_hangup_handled() => HAS_HUNG_UP.store(true, Ordering::Relaxed),
    }
}

/// Whether SIGHUP was received.
static HAS_HUNG_UP: AtomicBool = AtomicBool::new(false);

/// Whether SIGHUP shuts the command down. When a terminal is closed, its shell and the kernel send one SIGHUP
/// each. The second one must not count as another request, which would abort the shutdown that the first
/// one began.
fn is_hangup_handled() -> bool {
    !HAS_HUNG_UP.load(Ordering::Relaxed) && !is_ignored(SignalKind::hangup())
}

/// Whether a signal was ignored when the process started, as under `nohup`. Always false on systems
/// other than Linux.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (kind.as_raw_value() - 1)) != 0)
}
