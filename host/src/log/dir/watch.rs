//! File notifications: what wakes a reader at the end of a log.

use std::path::Path;
use std::sync::Mutex;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

use crate::log::LogError;

/// Counts changes below the topics that are read. One watcher serves them all: a
/// reader woken for another's change sees that nothing is there for it.
#[derive(Debug)]
pub(super) struct Notifications {
    changes: watch::Sender<u64>,
    /// Made when the first topic is read. A std lock: held while a folder is
    /// registered.
    watcher: Mutex<Option<RecommendedWatcher>>,
}

impl Default for Notifications {
    fn default() -> Self {
        Self { changes: watch::channel(0).0, watcher: Mutex::new(None) }
    }
}

impl Notifications {
    /// Watches a topic's folder too; the receiver changes when a file there does.
    pub(super) fn watch(&self, folder: &Path) -> Result<watch::Receiver<u64>, LogError> {
        let failed =
            |error: notify::Error| LogError::Watch { path: folder.to_owned(), reason: error.to_string() };
        // OK because nothing panics while it holds the lock.
        let mut watcher = self.watcher.lock().expect("not poisoned");
        let watcher = match watcher.as_mut() {
            Some(watcher) => watcher,
            None => watcher.insert(self.start().map_err(failed)?),
        };
        watcher.watch(folder, RecursiveMode::Recursive).map_err(failed)?;
        Ok(self.changes.subscribe())
    }

    fn start(&self) -> notify::Result<RecommendedWatcher> {
        let changes = self.changes.clone();
        notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is no change. An error may hide one, so it counts.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                changes.send_modify(|count| *count += 1);
            }
        })
    }
}
