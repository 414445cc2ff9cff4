//! A server's folder, and the files that the broker reads when it starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use crate::detached::{DetachedServer, ServerKind};
use crate::install::{Installation, io_error, kafka_folder, write_file};

/// The file with the broker's address. A detached broker is killed when this file is removed.
pub(crate) const ADDRESS_FILE: &str = "address";

/// The file with the id of the broker's process, while the process runs.
pub(crate) const PID_FILE: &str = "pid";

/// The file with the broker's output.
pub(crate) const LOG_FILE: &str = "broker.log";

/// The file with the broker's configuration.
pub(crate) const CONFIG_FILE: &str = "server.properties";

/// The folder with the broker's data.
pub(crate) const DATA_FOLDER: &str = "data";

/// Creates an empty folder with this name. Removes one that an earlier server left behind.
pub(crate) fn claim(target: &Path, kind: ServerKind, name: &str) -> Result<PathBuf, String> {
    if let Some(running) = DetachedServer::find(target, kind, name) {
        return Err(format!("`{name}` is already running at {}", running.address()));
    }
    DetachedServer::stop(target, kind, name)?;
    let folder = kafka_folder(target).join(name);
    fs::create_dir(&folder).map_err(|error| io_error("create", &folder, &error))?;
    Ok(folder)
}

/// Returns a name that no other broker has, whether of this process or of another one.
pub(crate) fn unique_name() -> String {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    format!("broker-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed))
}

/// Writes the files that the broker reads when it starts: its configuration, and a copy of the storage that
/// the installation formatted, changed to this cluster and node.
pub(crate) fn write_files(
    folder: &Path,
    installation: &Installation,
    cluster: &str,
    node: usize,
    configuration: &str,
) -> Result<(), String> {
    let read = |file: &str| {
        let path = installation.storage().join(file);
        fs::read(&path).map_err(|error| io_error("read", &path, &error))
    };
    let data = folder.join(DATA_FOLDER);
    let meta = read("meta.properties")?;
    let meta = rewrite_properties(&String::from_utf8_lossy(&meta), cluster, node);
    write_file(&data.join("meta.properties"), meta.as_bytes())?;
    write_file(&data.join("bootstrap.checkpoint"), &read("bootstrap.checkpoint")?)?;
    write_file(&folder.join(CONFIG_FILE), configuration.as_bytes())
}

/// Returns an id that no cluster had before.
pub(crate) fn unique_cluster_id(name: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{name}-{}", now.as_micros())
}

/// Returns the properties of formatted storage, changed to another cluster and node.
fn rewrite_properties(meta: &str, cluster: &str, node: usize) -> String {
    let line = |line: &str| match line.split_once('=') {
        Some(("cluster.id", _)) => format!("cluster.id={cluster}\n"),
        Some(("node.id", _)) => format!("node.id={node}\n"),
        // Changing the first character to the node's digit makes another valid id.
        Some(("directory.id", id)) => format!("directory.id={}{}\n", node % 10, &id[1..]),
        _ => format!("{line}\n"),
    };
    meta.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_properties_are_rewritten_for_another_cluster_and_node() {
        let meta = "#\nnode.id=1\ndirectory.id=abc\ncluster.id=unnamed\nversion=1\n";
        let expected = "#\nnode.id=3\ndirectory.id=3bc\ncluster.id=dev-1\nversion=1\n";
        assert_eq!(rewrite_properties(meta, "dev-1", 3), expected);
    }

    #[test]
    fn names_are_unique() {
        assert_ne!(unique_name(), unique_name());
    }
}
