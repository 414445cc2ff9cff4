//! Looks up whether the codecs of served tables were revoked, and reports that to the tables.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::codec::ComponentId;
use crate::oci::{Digest, RevocationLists, RevokedCodec, WhenRevoked};
use crate::serve::server::Server;
use crate::serve::tables::{ServedTable, Tables};
use crate::table::CodecRevocation;

/// How often lists of revocations in files and folders are read.
const LOCAL_INTERVAL: Duration = Duration::from_secs(60);

/// How often lists of revocations are read if one is in a registry.
const REMOTE_INTERVAL: Duration = Duration::from_secs(3600);

/// How often the lists that were read are compared with the codecs of tables, which swaps change.
const COMPARE_INTERVAL: Duration = Duration::from_secs(1);

/// Looks the codecs of all tables up, for ever: at intervals, and whenever the server asks for it.
pub(super) async fn follow(server: Arc<Server>) {
    loop {
        let catalog = server.catalog.load_full();
        // Reading files, and waiting for registries, blocks.
        let read = tokio::task::spawn_blocking(move || {
            (catalog.read_revocations(), catalog.has_remote_revocations())
        });
        // OK because the task is never cancelled: the error is a panic, which continues here.
        let (lists, is_remote) =
            read.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let lists = lists.unwrap_or_else(|error| {
            tracing::warn!("{error}");
            RevocationLists::unknown(error.to_string())
        });
        let read_at = Instant::now() + if is_remote { REMOTE_INTERVAL } else { LOCAL_INTERVAL };
        loop {
            let tables = server.tables.load();
            if let Some(tables) = tables.as_ref() {
                compare(tables, &lists);
            }
            let interval = if lists.is_empty() { LOCAL_INTERVAL } else { COMPARE_INTERVAL };
            let is_asked = timeout(interval, server.revocation_check.notified()).await.is_ok();
            if is_asked || Instant::now() >= read_at {
                break;
            }
        }
    }
}

/// Compares the codecs of all tables with the lists.
fn compare(tables: &Tables, lists: &RevocationLists) {
    for table in tables.values() {
        let codecs = table.codecs();
        let scheme = codecs.group_scheme.as_ref().and_then(|scheme| scheme.component());
        let used = [codecs.key.component(), codecs.value.component(), scheme].into_iter().flatten();
        let revoked = used.filter_map(|id| Some((lists.find(&digests(id))?, id)));
        match revoked.max_by_key(|(revoked, _)| revoked.running) {
            Some((revoked, id)) => report(table, codecs.fingerprint(), id, &revoked),
            None if lists.is_complete() => table.table.set_revocation(None),
            // A list that cannot be read does not say that a codec may be used again.
            None => {}
        }
    }
}

/// Returns the digests of a component, and of the manifest that it came with.
fn digests(id: &ComponentId) -> Vec<Digest> {
    let manifest = id.origin.as_ref().and_then(|origin| origin.manifest.as_deref());
    [Some(id.digest.as_str()), manifest].into_iter().flatten().filter_map(|text| text.parse().ok()).collect()
}

/// Reports to a table that one of its codecs was revoked.
fn report(table: &ServedTable, fingerprint: String, id: &ComponentId, revoked: &RevokedCodec) {
    let text = format!("the codec {id} must not be used any more: {}", revoked.reason);
    let (reason, freezes) = match revoked.running {
        WhenRevoked::Warn => return table.warn_once(&text),
        WhenRevoked::Degrade => (text, false),
        WhenRevoked::Freeze => (format!("{text} No more records are applied."), true),
    };
    let revocation = CodecRevocation { fingerprint: fingerprint.into(), reason: reason.into(), freezes };
    table.table.set_revocation(Some(revocation));
}
