//! Samples of a format, for `codec check`: from files, folders and topics.

use std::fs;
use std::path::Path;

use crate::authors::vectors::Vector;
use crate::cli::CliError;
use crate::cli::lines::MAX_VALUE_BYTES;
use crate::cli::records::read_range;
use crate::cli::test_codec::read_vectors;
use crate::file::{FileError, read_bounded};
use crate::log::{self, Header};
use crate::wasm::{CodecKind, Request};

/// How many records of a topic, or files of a folder, are samples.
const MAX_SAMPLES: usize = 1000;

/// A sample.
pub(super) enum Sample {
    Vector(Vector),
    /// A value, or else a key.
    Bytes(Vec<u8>),
    Record {
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        headers: Vec<Header>,
    },
}

impl Sample {
    /// Returns the requests with this sample for a component with these kinds of codec.
    pub(super) fn requests(&self, kinds: &[CodecKind]) -> Vec<(CodecKind, Request)> {
        let key_request = |key: Vec<u8>| match kinds.contains(&CodecKind::Key) {
            true => Some((CodecKind::Key, Request::DecodeKey(key))),
            // Without a codec of its own, a key is text.
            false => String::from_utf8(key).ok().map(|key| (CodecKind::Group, Request::Split(key))),
        };
        let value_request =
            |raw: Vec<u8>, headers: Vec<Header>| (CodecKind::Value, Request::DecodeValue { raw, headers });
        match self {
            Self::Vector(vector) => {
                vector.requests().map(|request| (vector.kind(), request)).collect::<Vec<_>>()
            }
            Self::Bytes(raw) if kinds.contains(&CodecKind::Value) => {
                vec![value_request(raw.clone(), Vec::new())]
            }
            Self::Bytes(raw) => key_request(raw.clone()).into_iter().collect(),
            Self::Record { key, value, headers } => {
                let value = value.clone().map(|raw| value_request(raw, headers.clone()));
                key.clone().and_then(key_request).into_iter().chain(value).collect()
            }
        }
    }
}

/// Reads the samples in a file, a folder or a topic.
pub(super) async fn read_samples(place: &str) -> Result<Vec<Sample>, CliError> {
    let path = Path::new(place);
    if path.is_dir() {
        return read_folder(path);
    }
    if path.is_file() {
        return read_file(path);
    }
    let topic = place.rsplit_once('/').filter(|(log, topic)| log.contains(':') && !topic.is_empty());
    match topic {
        Some((url, topic)) => read_topic(url, topic).await,
        None => Err(CliError::Usage(format!(
            "--samples {place}: there is no such file or folder, and it is no topic (LOG/TOPIC, for example \
             dir:./data/services)"
        ))),
    }
}

fn read_file(path: &Path) -> Result<Vec<Sample>, CliError> {
    if path.extension().is_some_and(|extension| extension == "ndjson") {
        return Ok(read_vectors(path)?.into_iter().map(|(_, vector)| Sample::Vector(vector)).collect());
    }
    let bytes = read_bounded(path, MAX_VALUE_BYTES).map_err(FileError::of::<CliError>("read", path))?;
    Ok(vec![Sample::Bytes(bytes)])
}

/// Reads the files in a folder, in the order of their names.
fn read_folder(folder: &Path) -> Result<Vec<Sample>, CliError> {
    let failed = FileError::of::<CliError>("read", folder);
    let entries: Result<Vec<_>, _> =
        fs::read_dir(folder).and_then(Iterator::collect).map(Ok).map_err(failed)?;
    let entries: Vec<fs::DirEntry> = entries.map_err(FileError::of::<CliError>("read", folder))?;
    let mut files: Vec<_> = entries.iter().map(fs::DirEntry::path).filter(|path| path.is_file()).collect();
    files.sort();
    let mut samples = Vec::new();
    for file in files.iter().take(MAX_SAMPLES) {
        samples.extend(read_file(file)?);
    }
    Ok(samples)
}

/// Reads the first records of each partition of a topic.
async fn read_topic(url: &str, topic: &str) -> Result<Vec<Sample>, CliError> {
    let log = log::open(url)?;
    let ranges = log.offsets(&log.describe(topic).await?).await?;
    let each = MAX_SAMPLES.div_ceil(ranges.len().max(1));
    let mut samples = Vec::new();
    for range in ranges {
        for batch in read_range(log.as_ref(), topic, range, each).await? {
            let records = (0..batch.len()).map(|index| batch.get(index));
            samples.extend(records.map(|record| Sample::Record {
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record.headers.to_vec(),
            }));
        }
    }
    Ok(samples)
}
