//! Tells systemd, or another service manager with the same protocol, that the server is ready or stops, and answers its
//! watchdog.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::serve::server::Server;
use crate::serve::tables::{ServedTable, unready};

/// How often the server looks whether it has become ready.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Reports that the server is ready, once all tables that it needs have been caught up, or have failed because a codec cannot
/// be loaded: a service that waits for them would never start. Answers the watchdog, if there is
/// one, three times as often as it asks. The answers come from the runtime: if that hangs, they stop, and the service
/// manager starts the server again.
pub(super) async fn follow(server: Arc<Server>) {
    let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 3);
    let (mut is_ready, mut reported) = (false, String::new());
    // Once the server stops, only that is reported.
    while !server.is_shutting_down() {
        if !is_ready && let Some(progress) = progress(&server) {
            is_ready = progress.is_empty();
            if is_ready {
                notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
            } else if progress != reported {
                notify(&[NotifyState::Status(&progress)]);
                reported = progress;
            }
        }
        if watchdog.is_some() {
            notify(&[NotifyState::Watchdog]);
        }
        match (is_ready, watchdog) {
            (false, _) => tokio::time::sleep(watchdog.unwrap_or(CHECK_INTERVAL).min(CHECK_INTERVAL)).await,
            (true, Some(interval)) => tokio::time::sleep(interval).await,
            (true, None) => return,
        }
    }
}

/// Returns what keeps the server from being ready: nothing once it is. `None` while the tables are being opened.
fn progress(server: &Server) -> Option<String> {
    let tables = server.tables.load();
    let waiting = unready((**tables).as_ref()?).filter(|table| table.codec_error.is_none());
    let describe = |table: &ServedTable| format!("{} is {}", table.name, table.table.status().name());
    let opening = server.opening.load();
    let opening = opening.iter().map(|name| format!("{name} is being opened"));
    Some(waiting.map(describe).chain(opening).collect::<Vec<_>>().join(", "))
}

/// Reports that the server stops.
pub(super) fn report_stop() {
    notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn notify(states: &[NotifyState<'_>]) {
    static HAS_FAILED: AtomicBool = AtomicBool::new(false);
    // Nothing happens without a service manager.
    if let Err(error) = sd_notify::notify(states)
        && !HAS_FAILED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!("cannot notify the service manager: {error}");
    }
}
