//! The folder of a topic: its name, the identity of the topic, and its partitions.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::file::read_bounded;
use crate::log::{LogError, NewTopic, Partition, TopicDescription, check_topic_name};

/// The file that makes a folder a topic.
const MANIFEST: &str = "topic.json";

/// The largest number of partitions of a topic in a directory: each one is a folder with open files.
const MAX_PARTITIONS: Partition = 256;

/// The largest size of `topic.json`, in bytes. It holds only an identity and a number.
const MAX_MANIFEST_BYTES: usize = 64 * 1024;

/// The contents of `topic.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    id: String,
    partitions: Partition,
}

/// Returns the folder of a topic.
pub(super) fn folder(root: &Path, topic: &str) -> PathBuf {
    root.join(topic)
}

/// Returns the folder of a partition.
pub(super) fn partition_folder(root: &Path, topic: &str, partition: Partition) -> PathBuf {
    folder(root, topic).join(partition.to_string())
}

/// Reads the description of a topic.
pub(super) fn describe(root: &Path, url: &str, topic: &str) -> Result<TopicDescription, LogError> {
    check_topic_name(topic)?;
    let unknown = || LogError::UnknownTopic { log: url.to_owned(), topic: topic.to_owned() };
    let manifest = read_manifest(root, topic)?.ok_or_else(unknown)?;
    check_partitions(topic, manifest.partitions)?;
    Ok(TopicDescription { name: topic.to_owned(), id: manifest.id, partitions: manifest.partitions })
}

/// Returns the identity of the current topic of this name; `None` if there is none.
pub(super) fn identity(root: &Path, topic: &str) -> Result<Option<String>, LogError> {
    Ok(read_manifest(root, topic)?.map(|manifest| manifest.id))
}

/// Reads `topic.json`; `None` if it does not exist.
fn read_manifest(root: &Path, topic: &str) -> Result<Option<Manifest>, LogError> {
    let path = folder(root, topic).join(MANIFEST);
    let text = match read_bounded(&path, MAX_MANIFEST_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io("read", &path)(error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        let error = io::Error::new(io::ErrorKind::InvalidData, format!("it is malformed: {error}"));
        LogError::io("read", &path)(error)
    })
}

/// Creates a topic. Its folder is written under a temporary name and then renamed, so that nobody sees an
/// incomplete topic, and only one of two concurrent creators succeeds.
pub(super) fn create(
    root: &Path,
    url: &str,
    topic: &str,
    settings: NewTopic,
) -> Result<TopicDescription, LogError> {
    check_topic_name(topic)?;
    let partitions = settings.partitions.unwrap_or(1);
    check_partitions(topic, partitions)?;
    if settings.replication_factor.is_some_and(|replicas| replicas != 1) {
        let reason = "a directory keeps one replica: leave the replication factor out".to_owned();
        return Err(LogError::InvalidTopic { topic: topic.to_owned(), reason });
    }
    let id = uuid::Uuid::new_v4().to_string();
    if let Some((name, value)) =
        settings.settings.iter().find(|&(name, value)| !is_supported(name, value, &settings))
    {
        let reason = format!("a directory does not support `{name}={value}`: it never deletes records");
        return Err(LogError::InvalidTopic { topic: topic.to_owned(), reason });
    }
    // No topic can have this name, because `~` is not allowed.
    let draft = root.join(format!("~{id}"));
    let written = write_draft(&draft, &Manifest { id, partitions });
    let path = folder(root, topic);
    let renamed = written.map(|()| fs::rename(&draft, &path));
    if !matches!(renamed, Ok(Ok(()))) {
        // OK to ignore: a draft that is left over disturbs nobody.
        let _ = fs::remove_dir_all(&draft);
    }
    if let Err(error) = renamed? {
        return Err(match (path.exists(), path.join(MANIFEST).exists()) {
            (true, true) => LogError::TopicExists { log: url.to_owned(), topic: topic.to_owned() },
            (true, false) => LogError::InvalidTopic {
                topic: topic.to_owned(),
                reason: format!("{} exists but is not a topic: it has no topic.json", path.display()),
            },
            (false, _) => LogError::io("create", &path)(error),
        });
    }
    sync_folder(root)?;
    describe(root, url, topic)
}

/// Returns the names of all topics, in order.
pub(super) fn list(root: &Path) -> Result<Vec<String>, LogError> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        // The folder is created with the first topic.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LogError::io("list", root)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(LogError::io("list", root))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if check_topic_name(&name).is_ok() && entry.path().join(MANIFEST).is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Deletes a topic. Its folder is renamed first, so that nobody sees an incomplete topic.
pub(super) fn delete(root: &Path, url: &str, topic: &str) -> Result<(), LogError> {
    describe(root, url, topic)?;
    let path = folder(root, topic);
    let deleted = root.join(format!("~{}", uuid::Uuid::new_v4()));
    fs::rename(&path, &deleted).map_err(LogError::io("delete", &path))?;
    sync_folder(root)?;
    fs::remove_dir_all(&deleted).map_err(LogError::io("remove", &deleted))
}

/// Writes the folder of a new topic, and syncs it.
fn write_draft(draft: &Path, manifest: &Manifest) -> Result<(), LogError> {
    for partition in 0..manifest.partitions {
        let folder = draft.join(partition.to_string());
        fs::create_dir_all(&folder).map_err(LogError::io("create", &folder))?;
    }
    let path = draft.join(MANIFEST);
    // OK because a manifest is a string and a number, which always serialize.
    let manifest = serde_json::to_vec(manifest).expect("serializes");
    let written =
        fs::File::create(&path).and_then(|mut file| file.write_all(&manifest).and_then(|()| file.sync_all()));
    written.map_err(LogError::io("write", &path))?;
    sync_folder(draft)
}

/// Whether a directory supports this setting: it keeps all records, and readers see the newest one of each key.
fn is_supported(name: &str, value: &str, settings: &NewTopic) -> bool {
    let keeps_all = settings.settings.get("retention.ms").is_some_and(|time| time == "-1");
    match (name, value) {
        ("cleanup.policy", "compact") | ("retention.ms" | "retention.bytes", "-1") => true,
        ("cleanup.policy", "delete") => keeps_all,
        _ => false,
    }
}

/// Syncs a folder, so that names that were created in it survive a crash of the machine.
pub(super) fn sync_folder(path: &Path) -> Result<(), LogError> {
    fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(LogError::io("sync", path))
}

/// Checks the number of partitions.
fn check_partitions(topic: &str, partitions: Partition) -> Result<(), LogError> {
    if (1..=MAX_PARTITIONS).contains(&partitions) {
        return Ok(());
    }
    let reason = format!("the number of partitions must be from 1 to {MAX_PARTITIONS}, not {partitions}");
    Err(LogError::InvalidTopic { topic: topic.to_owned(), reason })
}
