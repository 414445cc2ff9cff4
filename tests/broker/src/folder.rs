//! A broker's folder, and what lies in it before the broker starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use crate::detached::Detached;
use crate::install::{Installation, brokers, cannot, write};

/// The file with the broker's address; a detached broker ends without it.
pub(crate) const ADDRESS_FILE: &str = "address";

/// The file with the id of the broker's process, while there is one.
pub(crate) const PID_FILE: &str = "pid";

/// The file with the broker's output.
pub(crate) const LOG_FILE: &str = "broker.log";

/// The file with the broker's configuration.
pub(crate) const CONFIG_FILE: &str = "server.properties";

/// The folder with the broker's data.
pub(crate) const DATA: &str = "data";

/// An empty folder of this name. One that a broker left behind is removed.
pub(crate) fn claim(target: &Path, name: &str) -> Result<PathBuf, String> {
    if let Some(running) = Detached::find(target, name) {
        return Err(format!("a broker `{name}` already runs at {}", running.bootstrap()));
    }
    Detached::end(target, name)?;
    let folder = brokers(target).join(name);
    fs::create_dir(&folder).map_err(|error| cannot("create", &folder, &error))?;
    Ok(folder)
}

/// A name that no other broker has, of this process or of another one.
pub(crate) fn unique_name() -> String {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    format!("broker-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed))
}

/// Writes what the broker reads when it starts: its configuration, and storage as the
/// installation has formatted it, for a cluster of its own.
pub(crate) fn fill(
    folder: &Path,
    installation: &Installation,
    cluster: &str,
    node: usize,
    configuration: &str,
) -> Result<(), String> {
    let read = |file: &str| {
        let path = installation.storage().join(file);
        fs::read(&path).map_err(|error| cannot("read", &path, &error))
    };
    let data = folder.join(DATA);
    let meta = read("meta.properties")?;
    let meta = for_node(&String::from_utf8_lossy(&meta), cluster, node);
    write(&data.join("meta.properties"), meta.as_bytes())?;
    write(&data.join("bootstrap.checkpoint"), &read("bootstrap.checkpoint")?)?;
    write(&folder.join(CONFIG_FILE), configuration.as_bytes())
}

/// An id that no cluster had before.
pub(crate) fn cluster_id(name: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{name}-{}", now.as_micros())
}

/// The same properties of formatted storage for another cluster, and a node of it.
fn for_node(meta: &str, cluster: &str, node: usize) -> String {
    let line = |line: &str| match line.split_once('=') {
        Some(("cluster.id", _)) => format!("cluster.id={cluster}\n"),
        Some(("node.id", _)) => format!("node.id={node}\n"),
        // Any digit makes an identity again.
        Some(("directory.id", id)) => format!("directory.id={}{}\n", node % 10, &id[1..]),
        _ => format!("{line}\n"),
    };
    meta.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_is_given_to_another_cluster() {
        let meta = "#\nnode.id=1\ndirectory.id=abc\ncluster.id=unnamed\nversion=1\n";
        let moved = "#\nnode.id=3\ndirectory.id=3bc\ncluster.id=dev-1\nversion=1\n";
        assert_eq!(for_node(meta, "dev-1", 3), moved);
    }

    #[test]
    fn names_are_unique() {
        assert_ne!(unique_name(), unique_name());
    }
}
