//! How commands that write are stopped.

use std::time::Duration;

use crate::cli::{CliError, StopRequests};
use crate::log::Log;

/// How often the log is closed again while writes are given up, because more of them may have been queued
/// meanwhile.
const CLOSE_INTERVAL: Duration = Duration::from_millis(50);

/// Runs work that has written nothing if it is dropped before it is done. Drops it, and fails with
/// [`CliError::Interrupted`], when the command is asked to stop.
pub(super) async fn run_unless_stopped<T>(
    stop_requests: &mut StopRequests,
    work: impl Future<Output = T>,
) -> Result<T, CliError> {
    tokio::select! {
        done = work => Ok(done),
        () = wait_for_stop(stop_requests, 1) => Err(CliError::Interrupted),
    }
}

/// Waits for writes. When the command is asked to stop, gives up those that are not acknowledged, and returns
/// the results of all.
pub(super) async fn finish_or_give_up<T>(
    stop_requests: &mut StopRequests,
    log: &dyn Log,
    work: impl Future<Output = T>,
) -> T {
    finish_or_give_up_when(wait_for_stop(stop_requests, 1), log, work).await
}

/// Waits for writes. When `stop` resolves, closes the log, which fails all writes that are not acknowledged,
/// and returns their results.
pub(super) async fn finish_or_give_up_when<T>(
    stop: impl Future<Output = ()>,
    log: &dyn Log,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = stop => {}
    }
    // Closing fails the queued writes. Writes that are still being encoded are queued later, so it is closed
    // repeatedly.
    let give_up = async {
        loop {
            log.close(Duration::ZERO).await;
            tokio::time::sleep(CLOSE_INTERVAL).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = give_up => unreachable!("the loop never ends"),
    }
}

/// Waits until the command was asked to stop this many times.
pub(super) async fn wait_for_stop(stop_requests: &mut StopRequests, times: u8) {
    if stop_requests.wait_for(|&requests| requests >= times).await.is_err() {
        std::future::pending().await
    }
}
