//! A table of schemas as a schema registry: its keys are the numbers of versions, and its values are JSON Schemas.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::codec::{Need, Obtain};
use crate::config::table_source::TableSource;
use crate::escape::escape_name;
use crate::registry::{
    MissingSchemas, ResolvedSchema, SchemaAnswer, SchemaQuery, SchemaSource, SchemaType, UNKNOWN_SCHEMA,
};
use crate::sync::lock;
use crate::table::{Freshness, Table};

/// How long a schema that the table did not have counts as missing before it is looked for again, and how many are
/// remembered.
const REFUSAL_TTL: Duration = Duration::from_secs(30);
const MAX_REFUSALS: usize = 10_000;

/// How long it may take until the table has everything that is in its topic.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What separates a prefix from the subject in the name of a topic of schemas.
const SUBJECT_SEPARATOR: &str = "__schema__";

/// A table of schemas. The first codec that needs a schema opens it.
#[derive(Debug)]
pub(super) struct SchemaTable {
    name: String,
    source: TableSource,
    /// A std lock: held to read or write it.
    state: Mutex<State>,
    /// Held while the table is brought up to date.
    updating: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` until it is opened.
    table: Option<Table>,
    /// Whether it has once had everything that was in its topic.
    was_complete: bool,
    /// What it did not have, and when that was found out.
    refusals: HashMap<SchemaQuery, Instant>,
}

impl SchemaTable {
    pub(super) fn new(name: &str, source: TableSource) -> Self {
        Self {
            name: name.to_owned(),
            source,
            state: Mutex::default(),
            updating: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the answer to a query; `None` if the table does not have it.
    fn look_up(&self, table: &Table, query: &SchemaQuery) -> Option<SchemaAnswer> {
        let has_subject = |other: &str| {
            let subject = self.source.topic().rsplit_once(SUBJECT_SEPARATOR);
            subject.is_none_or(|(_, subject)| subject == other)
        };
        match query {
            SchemaQuery::Version(subject, version) if has_subject(subject) => {
                let has_version = table.contains(&version.to_string());
                has_version.then_some(SchemaAnswer::Version { version: *version, id: *version })
            }
            SchemaQuery::Latest(subject) if has_subject(subject) => {
                let snapshot = table.snapshot();
                let newest = snapshot.iter().filter_map(|entry| entry.key().parse().ok()).max()?;
                Some(SchemaAnswer::Version { version: newest, id: newest })
            }
            SchemaQuery::Id(id) => {
                let (schema_type, text) = (SchemaType::Json, table.get(&id.to_string())?.json().to_owned());
                let schema = ResolvedSchema { schema_type, text, references: Vec::new() };
                Some(SchemaAnswer::Schema(Arc::new(schema)))
            }
            SchemaQuery::Register(..) => {
                let reason = format!("schemas are written to the table {} itself", escape_name(&self.name));
                Some(SchemaAnswer::Refused(reason))
            }
            SchemaQuery::Version(..) | SchemaQuery::Latest(_) | SchemaQuery::Guid(_) => {
                Some(SchemaAnswer::Unknown(self.describe_missing(query)))
            }
        }
    }

    /// Says that the table does not have what a query asks for.
    fn describe_missing(&self, query: &SchemaQuery) -> String {
        let missing = match query {
            SchemaQuery::Id(version) | SchemaQuery::Version(_, version) => format!("version {version}"),
            SchemaQuery::Latest(subject) | SchemaQuery::Register(subject, _) => {
                format!("version of {}", escape_name(subject))
            }
            SchemaQuery::Guid(guid) => format!("GUID {guid}"),
        };
        let subject = match query {
            SchemaQuery::Version(subject, _) => format!(" of {}", escape_name(subject)),
            _ => String::new(),
        };
        format!("{UNKNOWN_SCHEMA}the table of schemas {} has no {missing}{subject}", escape_name(&self.name))
    }

    /// Brings the table up to date with its topic, and remembers which of these queries it cannot answer.
    async fn update(&self, queries: &BTreeSet<SchemaQuery>) -> Result<(), String> {
        let _updating = self.updating.lock().await;
        let started = Instant::now();
        let update = tokio::time::timeout(TIMEOUT, self.open_up_to_date()).await;
        let error = |reason: String| format!("the table of schemas {}: {reason}", escape_name(&self.name));
        let table = update.unwrap_or_else(|_| Err("it is still loading".to_owned())).map_err(error)?;
        let missing: Vec<_> =
            queries.iter().filter(|query| self.look_up(&table, query).is_none()).cloned().collect();
        let mut state = lock(&self.state);
        state.was_complete = true;
        if state.refusals.len() + missing.len() > MAX_REFUSALS {
            state.refusals.clear();
        }
        state.refusals.extend(missing.into_iter().map(|query| (query, started)));
        Ok(())
    }

    /// Opens the table, if it is not open or has failed, and waits until it has everything that is in its topic.
    async fn open_up_to_date(&self) -> Result<Table, String> {
        let open = lock(&self.state).table.clone().filter(|table| !table.status().is_final());
        let table = match open {
            Some(table) => table,
            None => {
                // The settings of the section are for the table that is served, if it is.
                let TableSource { log, codecs, .. } = &self.source;
                let builder = Table::builder(log.clone(), self.source.topic(), codecs.clone());
                let table =
                    builder.catchup_timeout(TIMEOUT).open().await.map_err(|error| error.to_string())?;
                let state = State { table: Some(table.clone()), ..State::default() };
                *lock(&self.state) = state;
                table
            }
        };
        table.wait_until_ready().await.map_err(|error| error.to_string())?;
        match table.barrier(TIMEOUT).await {
            Freshness::Fresh => Ok(table),
            Freshness::Stale(reason) => Err(format!("it is not up to date: {reason}")),
        }
    }
}

impl SchemaSource for SchemaTable {
    fn find(&self, query: &SchemaQuery) -> Option<SchemaAnswer> {
        let state = lock(&self.state);
        let table = state.table.as_ref().filter(|_| state.was_complete)?;
        self.look_up(table, query).or_else(|| {
            let is_refused = state.refusals.get(query).is_some_and(|since| since.elapsed() < REFUSAL_TTL);
            is_refused.then(|| SchemaAnswer::Unknown(self.describe_missing(query)))
        })
    }

    fn need(self: Arc<Self>, missing: MissingSchemas) -> Need {
        Need::new(Refresh { table: self, queries: missing.into_queries() })
    }

    fn identity(&self) -> String {
        format!("table {} {}", self.source.log.url(), self.source.topic())
    }
}

/// Brings a table of schemas up to date with its topic.
struct Refresh {
    table: Arc<SchemaTable>,
    queries: BTreeSet<SchemaQuery>,
}

impl Obtain for Refresh {
    fn obtain(&self) -> BoxFuture<'_, Result<(), String>> {
        self.table.update(&self.queries).boxed()
    }
}
