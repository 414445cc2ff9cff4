//! The clients of the configuration and of its file of clients, which is read again when it changes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::{AccessConfig, ServerClients};
use crate::serve::access::Access;
use crate::serve::server::Server;

/// How often the file is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Creates the access that the configuration and its file of clients describe.
pub(super) fn read_access(config: &AccessConfig) -> Result<Access, String> {
    let mut clients = config.clients.clone();
    if let Some(file) = &config.clients_file {
        for (name, client) in ServerClients::read(file)?.0 {
            if clients.contains_key(&name) {
                return Err(format!(
                    "access.clients.{name} is also in {}: remove one of them",
                    file.display()
                ));
            }
            clients.insert(name, client);
        }
    }
    Access::new(&clients)
}

/// Reads the file of clients again whenever it has changed. If it cannot be used, keeps the clients that were read
/// before, and logs why. A reload of the configuration may name another file.
pub(super) async fn follow(server: Arc<Server>) {
    // What the server has read at its start may be older by now, so the file is read once more.
    let mut seen = None;
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        // A reload must not be overwritten.
        let _reading = server.reading_access.lock().await;
        let config = server.access_config.load_full();
        let Some(config) = &*config else { return };
        let Some(file) = &config.clients_file else { continue };
        let now = modified(file).map(|time| (file.clone(), time));
        if now == seen {
            continue;
        }
        let is_first = seen.is_none();
        seen = now;
        match read_access(config) {
            Ok(access) => server.access.store(Arc::new(access)),
            Err(reason) => {
                tracing::warn!("keeping the clients that were read before: {reason}");
                continue;
            }
        }
        if !is_first {
            tracing::info!(target: "ktables::audit", "read the clients of {} again", file.display());
        }
    }
}

fn modified(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}
