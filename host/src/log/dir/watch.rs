//! File notifications, which wake readers that wait at the end of a log.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

use crate::log::LogError;
use crate::sync::lock;

/// Counts the changes of files in the folders of all topics that have been read. One watcher serves all
/// readers: a reader that is woken by a change of another topic finds no new records, and waits again. A
/// clone is a handle to the same watcher.
#[derive(Debug, Clone)]
pub(super) struct Notifications {
    changes: watch::Sender<u64>,
    /// The watcher, which is created when the first topic is read. A std lock: held while a folder is
    /// registered.
    watcher: Arc<Mutex<Option<FolderWatcher>>>,
}

/// A file watcher, and the folders that it watches.
#[derive(Debug)]
struct FolderWatcher {
    watcher: RecommendedWatcher,
    folders: BTreeMap<PathBuf, FolderId>,
}

/// What tells a folder from another one that has taken its path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FolderId {
    /// The identity of the topic. A folder that is restored from a backup has the same one.
    topic_id: String,
    device: u64,
    /// The inode, which may be used again.
    inode: u64,
    /// When the folder was changed: created, or the last partition was added.
    changed: (i64, i64),
}

impl FolderId {
    fn of(folder: &Path, topic_id: &str) -> io::Result<Self> {
        let metadata = std::fs::metadata(folder)?;
        Ok(Self {
            topic_id: topic_id.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Default for Notifications {
    fn default() -> Self {
        Self { changes: watch::channel(0).0, watcher: Arc::default() }
    }
}

impl Notifications {
    /// Watches the folder of a topic, in addition to those of others. The receiver changes whenever a file in
    /// one of the folders changes.
    ///
    /// A folder that was deleted and created again needs a new watcher. The old one removes the folder by its
    /// path when it receives the notification of the deletion, which may be after the new folder was added.
    pub(super) fn watch(&self, folder: &Path, topic_id: &str) -> Result<watch::Receiver<u64>, LogError> {
        let failed =
            |error: notify::Error| LogError::Watch { path: folder.to_owned(), reason: error.to_string() };
        let id = FolderId::of(folder, topic_id).map_err(LogError::io("read the metadata of", folder))?;
        let mut current = lock(&self.watcher);
        let known = current.as_ref().and_then(|current| current.folders.get(folder));
        if known == Some(&id) {
            return Ok(self.changes.subscribe());
        }
        let is_new = known.is_none();
        let mut folders = current.as_ref().map(|current| current.folders.clone()).unwrap_or_default();
        folders.insert(folder.to_owned(), id);
        match current.as_mut() {
            Some(current) if is_new => {
                current.watcher.watch(folder, RecursiveMode::Recursive).map_err(failed)?;
                current.folders = folders;
            }
            _ => {
                let mut watcher = self.create_watcher().map_err(failed)?;
                // Other folders may have been deleted meanwhile. Their readers notice that themselves.
                folders.retain(|other, _| other == folder || other.exists());
                for folder in folders.keys() {
                    watcher.watch(folder, RecursiveMode::Recursive).map_err(failed)?;
                }
                *current = Some(FolderWatcher { watcher, folders });
            }
        }
        Ok(self.changes.subscribe())
    }

    /// Creates a watcher that counts changes.
    fn create_watcher(&self) -> notify::Result<RecommendedWatcher> {
        let changes = self.changes.clone();
        notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is not a change. An error counts as one, because it may hide one.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                changes.send_modify(|count| *count += 1);
            }
        })
    }
}
