//! File notifications: what wakes a reader at the end of a log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

use crate::log::LogError;
use crate::sync::lock;

/// Counts changes below the topics that are read. One watcher serves them all: a
/// reader woken for another's change sees that nothing is there for it. A clone is a handle.
#[derive(Debug, Clone)]
pub(super) struct Notifications {
    changes: watch::Sender<u64>,
    /// Made when the first topic is read. A std lock: held while a folder is
    /// registered.
    watched: Arc<Mutex<Option<Watched>>>,
}

/// A watcher, and what it watches.
#[derive(Debug)]
struct Watched {
    watcher: RecommendedWatcher,
    /// Topics' folders, with the identity of the topic in each.
    folders: BTreeMap<PathBuf, String>,
}

impl Default for Notifications {
    fn default() -> Self {
        Self { changes: watch::channel(0).0, watched: Arc::default() }
    }
}

impl Notifications {
    /// Watches a topic's folder too; the receiver changes when a file there does.
    ///
    /// A folder that was deleted and created again needs a new watcher: the old
    /// one forgets it by its path when it hears of the deletion, which may be after
    /// it was told to watch the new one.
    pub(super) fn watch(&self, folder: &Path, topic_id: &str) -> Result<watch::Receiver<u64>, LogError> {
        let failed =
            |error: notify::Error| LogError::Watch { path: folder.to_owned(), reason: error.to_string() };
        let mut watched = lock(&self.watched);
        let known = watched.as_ref().and_then(|watched| watched.folders.get(folder));
        if known.is_some_and(|known| known == topic_id) {
            return Ok(self.changes.subscribe());
        }
        let is_new = known.is_none();
        let mut folders = watched.as_ref().map(|watched| watched.folders.clone()).unwrap_or_default();
        folders.insert(folder.to_owned(), topic_id.to_owned());
        match watched.as_mut() {
            Some(watched) if is_new => {
                watched.watcher.watch(folder, RecursiveMode::Recursive).map_err(failed)?;
                watched.folders = folders;
            }
            _ => {
                let mut watcher = self.start().map_err(failed)?;
                watcher.watch(folder, RecursiveMode::Recursive).map_err(failed)?;
                // Of the others, some may be gone; who reads them has heard of it.
                folders.retain(|other, _| {
                    other == folder || watcher.watch(other, RecursiveMode::Recursive).is_ok()
                });
                *watched = Some(Watched { watcher, folders });
            }
        }
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
