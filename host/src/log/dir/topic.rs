//! A topic's folder: its name, its identity, its partitions.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::file::read_bounded;
use crate::log::{LogError, NewTopic, Partition, TopicDescription};

/// The most partitions a topic may have here: each is a folder with open files.
const MAX_PARTITIONS: Partition = 256;

/// The largest `topic.json`: it has an identity and a number.
const MAX_MANIFEST_BYTES: usize = 64 * 1024;

/// The longest name Kafka allows.
const MAX_NAME: usize = 249;

/// What `topic.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    id: String,
    partitions: Partition,
}

pub(super) fn folder(root: &Path, topic: &str) -> PathBuf {
    root.join(topic)
}

pub(super) fn partition_folder(root: &Path, topic: &str, partition: Partition) -> PathBuf {
    folder(root, topic).join(partition.to_string())
}

pub(super) fn describe(root: &Path, url: &str, topic: &str) -> Result<TopicDescription, LogError> {
    check_name(topic)?;
    let unknown = || LogError::UnknownTopic { log: url.to_owned(), topic: topic.to_owned() };
    let manifest = manifest(root, topic)?.ok_or_else(unknown)?;
    check_partitions(topic, manifest.partitions)?;
    Ok(TopicDescription { name: topic.to_owned(), id: manifest.id, partitions: manifest.partitions })
}

/// The identity of the topic that has this name now.
pub(super) fn identity(root: &Path, topic: &str) -> Result<Option<String>, LogError> {
    Ok(manifest(root, topic)?.map(|manifest| manifest.id))
}

fn manifest(root: &Path, topic: &str) -> Result<Option<Manifest>, LogError> {
    let path = folder(root, topic).join("topic.json");
    let text = match read_bounded(&path, MAX_MANIFEST_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io("read", &path)(error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| LogError::InvalidTopic {
        topic: topic.to_owned(),
        reason: format!("{}: {error}", path.display()),
    })
}

/// Makes the folder beside its place and renames it, so that nobody sees half a
/// topic and of two creators one wins.
pub(super) fn create(
    root: &Path,
    url: &str,
    topic: &str,
    settings: NewTopic,
) -> Result<TopicDescription, LogError> {
    check_name(topic)?;
    let partitions = settings.partitions.unwrap_or(1);
    check_partitions(topic, partitions)?;
    if settings.replication_factor.is_some_and(|replicas| replicas != 1) {
        let reason = "a directory keeps one replica".to_owned();
        return Err(LogError::InvalidTopic { topic: topic.to_owned(), reason });
    }
    let id = uuid::Uuid::new_v4().to_string();
    if let Some((name, value)) = settings.settings.iter().find(|&(name, value)| !is_kept(name, value)) {
        let reason = format!("a directory has no setting `{name}={value}`: it deletes nothing");
        return Err(LogError::InvalidTopic { topic: topic.to_owned(), reason });
    }
    // A name no topic can have: `~` is not allowed in one.
    let draft = root.join(format!("~{id}"));
    let written = write_draft(&draft, &Manifest { id, partitions });
    let place = folder(root, topic);
    let renamed = written.map(|()| fs::rename(&draft, &place));
    if !matches!(renamed, Ok(Ok(()))) {
        // Best effort: a draft left behind is in nobody's way.
        let _ = fs::remove_dir_all(&draft);
    }
    if let Err(error) = renamed? {
        return Err(match (place.exists(), place.join("topic.json").exists()) {
            (true, true) => LogError::TopicExists { log: url.to_owned(), topic: topic.to_owned() },
            (true, false) => LogError::InvalidTopic {
                topic: topic.to_owned(),
                reason: format!("{} is there and is no topic: it has no topic.json", place.display()),
            },
            (false, _) => LogError::io("create", &place)(error),
        });
    }
    sync_folder(root)?;
    describe(root, url, topic)
}

/// Writes the folder of a topic.
fn write_draft(draft: &Path, manifest: &Manifest) -> Result<(), LogError> {
    for partition in 0..manifest.partitions {
        let folder = draft.join(partition.to_string());
        fs::create_dir_all(&folder).map_err(LogError::io("create", &folder))?;
    }
    let path = draft.join("topic.json");
    // OK because a manifest is a string and a number.
    let manifest = serde_json::to_vec(manifest).expect("serializes");
    let written =
        fs::File::create(&path).and_then(|mut file| file.write_all(&manifest).and_then(|()| file.sync_all()));
    written.map_err(LogError::io("write", &path))?;
    sync_folder(draft)
}

/// Whether a directory does as this setting says.
fn is_kept(name: &str, value: &str) -> bool {
    (name, value) == ("cleanup.policy", "compact")
}

/// Makes a new name in a folder survive a crash of the machine.
pub(super) fn sync_folder(path: &Path) -> Result<(), LogError> {
    fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(LogError::io("sync", path))
}

fn check_partitions(topic: &str, partitions: Partition) -> Result<(), LogError> {
    if (1..=MAX_PARTITIONS).contains(&partitions) {
        return Ok(());
    }
    let reason = format!("partitions must be 1 to {MAX_PARTITIONS}, not {partitions}");
    Err(LogError::InvalidTopic { topic: topic.to_owned(), reason })
}

/// Kafka's rules; they also keep a name from leaving the log's folder.
fn check_name(topic: &str) -> Result<(), LogError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let reason = if topic.is_empty() {
        "a topic needs a name".to_owned()
    } else if topic.len() > MAX_NAME {
        format!("a name has at most {MAX_NAME} characters, this one has {}", topic.len())
    } else if matches!(topic, "." | "..") {
        "`.` and `..` are no names".to_owned()
    } else if let Some(c) = topic.chars().find(|&c| !legal(c)) {
        format!("`{c}` is not allowed in a name: only ASCII letters, digits, `.`, `_` and `-` are")
    } else {
        return Ok(());
    };
    Err(LogError::InvalidTopic { topic: topic.to_owned(), reason })
}
