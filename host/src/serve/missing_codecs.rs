//! Opens tables again whose codecs could not be loaded: a registry may answer again, a policy may approve them now, or
//! somebody has repaired a file.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::serve::reload::{open_source, open_table};
use crate::serve::server::Server;
use crate::serve::tables::ServedTable;

/// The first pause before codecs are loaded again: enough for a registry to restart.
const FIRST_PAUSE: Duration = Duration::from_secs(15);

/// How long it waits at most, after many tries. Many servers may ask the same registry.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Retries tables whose codecs could not be loaded, until it is dropped.
pub(super) async fn retry(server: Arc<Server>) {
    let pauses = || {
        let pauses = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
        pauses.with_jitter().without_max_times().build()
    };
    let mut next_pauses = pauses();
    loop {
        let pause = next_pauses.next().unwrap_or(LONGEST_PAUSE);
        if timeout(pause, server.codec_retry.notified()).await.is_ok() {
            next_pauses = pauses();
        }
        let tables = server.tables.load_full();
        let tables = (*tables).iter().flatten().map(|(_, table)| table);
        let failed: Vec<_> = tables.filter(|table| table.codec_error.is_some()).collect();
        if failed.is_empty() {
            next_pauses = pauses();
        }
        join_all(failed.into_iter().map(|table| reopen(&server, table))).await;
    }
}

/// Opens a table again, if its codecs can be loaded now, or cannot be loaded for another reason.
async fn reopen(server: &Server, before: &Arc<ServedTable>) {
    let (name, catalog) = (&before.name, server.catalog.load_full());
    // A registry may take minutes, and a reload must not wait for it.
    let table = match open_source(&catalog, name.clone()).await {
        Ok(table) => table,
        Err(error) => return before.warn_once(&error.to_string()),
    };
    let reason = |error: Option<&_>| error.map(ToString::to_string);
    if reason(table.codec_error.as_ref()) == reason(before.codec_error.as_ref()) {
        return;
    }
    let _reloading = server.reloading.lock().await;
    let tables = server.tables.load_full();
    let Some(tables) = &*tables else { return };
    // A reload may have changed the configuration, or replaced the table.
    let is_current = Arc::ptr_eq(&catalog, &server.catalog.load_full())
        && tables.get(name).is_some_and(|table| Arc::ptr_eq(table, before));
    if !is_current {
        return;
    }
    match open_table(name, table, before.is_required).await {
        Ok(table) => {
            if table.codec_error.is_none() {
                tracing::info!(table = name, "the codecs of the table can be loaded now");
            }
            let mut tables = tables.clone();
            tables.insert(name.clone(), table);
            server.tables.store(Arc::new(Some(tables)));
        }
        Err(error) => before.warn_once(&error.to_string()),
    }
}
