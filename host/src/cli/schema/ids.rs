//! `schema ids`: the ids of schemas that the records of a topic have.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use serde::Serialize;

use crate::cli::args::IdsArgs;
use crate::cli::output::Output;
use crate::cli::schema::open::find;
use crate::cli::{CliError, Exit, logs};
use crate::escape::escape_name;
use crate::log::{Header, Headers, Offset, Partition, Record, RecordBatch, read_ranges};
use crate::registry::{Registry, RegistryError, SchemaType, WireId};

/// The headers with the ids of keys and values.
const HEADERS: [&str; 2] = ["__key_schema_id", "__value_schema_id"];

/// A part of a record, and the id of its schema; `None` for a part without one.
type PartId = (&'static str, Option<WireId>);

/// How many different ids are counted. A topic with more has no ids of schemas.
const MAX_IDS: usize = 10_000;

/// How many ids are resolved at once.
const REQUESTS_AT_ONCE: usize = 8;

/// How many records have an id, and the first and the last one, by partition and offset.
#[derive(Debug, Clone, Copy)]
struct Count {
    records: u64,
    first: (Partition, Offset),
    last: (Partition, Offset),
}

/// A line of the answer.
#[derive(Debug, Serialize)]
struct IdJson {
    part: &'static str,
    /// The number or the GUID of the schema; `None` for records without an id.
    id: Option<String>,
    records: u64,
    first: RecordPosition,
    last: RecordPosition,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    schema_type: Option<SchemaType>,
    /// Whether the registry has the schema, if one was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved: Option<bool>,
}

#[derive(Debug, Serialize)]
struct RecordPosition {
    partition: Partition,
    offset: Offset,
}

impl From<(Partition, Offset)> for RecordPosition {
    fn from((partition, offset): (Partition, Offset)) -> Self {
        Self { partition, offset }
    }
}

pub(super) async fn ids(args: &IdsArgs, output: Output) -> Result<Exit, CliError> {
    let registry = find(&args.registry)?;
    let log = logs::open(&args.topic.log)?;
    let topic = log.describe(&args.topic.topic).await?;
    let ranges = log.offsets(&topic).await?;
    let mut counts: BTreeMap<PartId, Count> = BTreeMap::new();
    let count = |batch: RecordBatch| {
        for record in (0..batch.len()).map(|index| batch.get(index)) {
            for part_id in part_ids(&record) {
                let here = (record.partition, record.offset);
                let count = counts.entry(part_id).or_insert(Count { records: 0, first: here, last: here });
                count.records += 1;
                count.first = count.first.min(here);
                count.last = count.last.max(here);
            }
        }
        if counts.len() > MAX_IDS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    read_ranges(&*log, &topic, &ranges, Headers::Wanted, count).await?;
    if counts.len() > MAX_IDS {
        return Err(CliError::Refused(format!(
            "the records of topic `{}` begin with more than {MAX_IDS} different numbers, so these are not ids of schemas",
            escape_name(&topic.name)
        )));
    }
    let registry = registry.as_ref();
    let row = async |((part, id), count): (PartId, Count)| {
        let resolved = match (registry, id) {
            (Some(registry), Some(id)) => Some(resolve(registry, id).await),
            _ => None,
        };
        let (schema_type, resolved, error) = match resolved {
            None => (None, None, None),
            Some(Ok(found)) => (found, Some(found.is_some()), None),
            Some(Err(error)) => (None, None, Some(error)),
        };
        let (first, last) = (count.first.into(), count.last.into());
        let id = id.map(|id| id.to_string());
        (IdJson { part, id, records: count.records, first, last, schema_type, resolved }, error)
    };
    let rows: Vec<BoxFuture<'_, _>> = counts.into_iter().map(|counted| row(counted).boxed()).collect();
    let rows: Vec<_> = stream::iter(rows).buffered(REQUESTS_AT_ONCE).collect().await;
    let (rows, errors): (Vec<IdJson>, Vec<Option<RegistryError>>) = rows.into_iter().unzip();
    let is_unresolved = rows.iter().any(|row| row.resolved == Some(false));
    output.print_rows(rows)?;
    // What was counted is printed in any case.
    if let Some(error) = errors.into_iter().flatten().next() {
        return Err(error.into());
    }
    Ok(if is_unresolved { Exit::No } else { Exit::Done })
}

/// Returns the parts of a record that are not null, or that have a header with an id, each with its id.
fn part_ids(record: &Record<'_>) -> impl Iterator<Item = PartId> {
    let parts = [("key", record.key), ("value", record.value)];
    let part_id = |((part, bytes), header): ((&'static str, Option<&[u8]>), &str)| {
        let header: Option<&Header> = record.headers.iter().rev().find(|it| it.name == header);
        let id = match header {
            // What follows the id in it are message indexes.
            Some(header) => header.value.as_deref().and_then(WireId::of_header),
            None => WireId::of_prefix(bytes?),
        };
        Some((part, id))
    };
    parts.into_iter().zip(HEADERS).filter_map(part_id).collect::<Vec<_>>().into_iter()
}

/// Asks a registry for the schema with an id. Returns `None` if it has none.
async fn resolve(registry: &Registry, id: WireId) -> Result<Option<SchemaType>, RegistryError> {
    match registry.schema_of(id).await {
        Ok(schema) => Ok(Some(schema.schema_type)),
        Err(RegistryError::NotFound { .. }) => Ok(None),
        // Not every registry knows GUIDs, nor numbers that none has.
        Err(RegistryError::BadAnswer { .. }) if id.is_unusual() => Ok(None),
        Err(error) => Err(error),
    }
}
