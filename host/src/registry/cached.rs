//! Caches the answers of a schema registry, and fetches missing ones together.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};

use crate::codec::{Need, Obtain};
use crate::registry::cache::{Changed, SchemaCache, describe, unknown};
use crate::registry::folder::SchemaFolder;
use crate::registry::{
    MissingSchemas, Registry, RegistryError, RegistryOptions, SchemaAnswer, SchemaQuery, SchemaSource,
    VersionName, WireId,
};
use crate::sync::lock;
use crate::thread::run_long;

/// How many requests run at once.
const REQUESTS_AT_ONCE: usize = 8;

/// How many answers are obtained before others may ask.
const QUERIES_PER_TURN: usize = 16;

/// The pauses after failures. One that the registry asks for may be longer.
const MIN_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(15);
const MAX_WANTED_PAUSE: Duration = Duration::from_secs(300);

/// What failed, as a status says it.
const UNREACHABLE: &str = "schema registry unreachable";
const UNUSABLE: &str = "schema unusable";
/// Neither the schema that was known nor the new one is used.
const CHANGED: &str = "schema changed";

/// How many failures of single schemas are remembered.
const MAX_FAILURES: usize = 10_000;

/// A schema registry with the answers that were obtained. All codecs that use the registry share it.
#[derive(Debug)]
pub(crate) struct CachedRegistry {
    registry: ArcSwap<Registry>,
    identity: String,
    /// A std lock: held for a lookup, or to keep an answer.
    cache: Mutex<SchemaCache>,
    folder: Option<SchemaFolder>,
    /// A lock of tokio, held while some answers are fetched: callers that miss the same answers share the requests.
    failures: tokio::sync::Mutex<Failures>,
}

/// The failures of the registry and of single queries, with their pauses.
#[derive(Debug, Default)]
struct Failures {
    /// Of the registry.
    outage: Option<Failure>,
    /// Of single schemas.
    queries: HashMap<SchemaQuery, Failure>,
}

/// Something that has failed.
#[derive(Debug, Clone)]
struct Failure {
    what: &'static str,
    since: SystemTime,
    /// It is left alone until then.
    until: Instant,
    pause: Duration,
    reason: String,
}

impl Failure {
    /// Something has failed, again or for the first time.
    fn again(
        before: Option<Self>,
        what: &'static str,
        reason: String,
        wanted_pause: Option<Duration>,
    ) -> Self {
        let since = before.as_ref().map_or_else(SystemTime::now, |before| before.since);
        let pause = before.map_or(MIN_PAUSE, |before| (before.pause * 2).min(MAX_PAUSE));
        // Many processes may wait for one registry.
        let jittered = pause.mul_f64(rand::random_range(0.8..1.2));
        let wanted = wanted_pause.unwrap_or_default().min(MAX_WANTED_PAUSE);
        Self { what, since, until: Instant::now() + jittered.max(wanted), pause, reason }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} since {}: {}", self.what, humantime::format_rfc3339_seconds(self.since), self.reason)
    }
}

impl Failures {
    /// Returns why a query is not asked now.
    fn current(&self, query: &SchemaQuery) -> Option<&Failure> {
        let now = Instant::now();
        let of_query = self.queries.get(query).filter(|failure| now < failure.until);
        of_query.or_else(|| self.outage.as_ref().filter(|outage| now < outage.until))
    }

    /// Notes that one query has failed. Returns why.
    fn note_query(&mut self, query: &SchemaQuery, what: &'static str, reason: String) -> String {
        if self.queries.len() >= MAX_FAILURES {
            self.queries.clear();
        }
        let failure = Failure::again(self.queries.remove(query), what, reason, None);
        let text = failure.to_string();
        // A schema to add is large, and a write that fails is not tried again.
        if !matches!(query, SchemaQuery::Register(..)) {
            self.queries.insert(query.clone(), failure);
        }
        text
    }

    /// Notes that the registry does not work. Returns why.
    fn note_outage(&mut self, error: &RegistryError) -> String {
        let before = self.outage.take();
        if before.is_none() {
            tracing::warn!("{error}");
        }
        let outage = Failure::again(before, UNREACHABLE, error.to_string(), error.retry_after());
        let text = outage.to_string();
        self.outage = Some(outage);
        text
    }

    /// Notes that the registry answers.
    fn end_outage(&mut self, registry: &str) {
        if let Some(Failure { since, .. }) = self.outage.take() {
            let since = humantime::format_rfc3339_seconds(since);
            tracing::info!("the schema registry {registry} answers again; the outage began at {since}");
        }
    }
}

impl CachedRegistry {
    /// Opens a registry, without asking it. Schemas are kept below the folder of all caches, if there is one.
    pub(crate) fn new(options: RegistryOptions, caches: Option<&Path>) -> Result<Self, RegistryError> {
        let registry = Registry::new(options)?.with_one_attempt();
        let identity = registry.name().to_owned();
        let folder = caches.and_then(|caches| SchemaFolder::open(caches, &identity));
        Ok(Self {
            registry: ArcSwap::from_pointee(registry),
            identity,
            cache: Mutex::new(SchemaCache::new()),
            folder,
            failures: tokio::sync::Mutex::default(),
        })
    }

    /// Whether these are options of the same registry.
    pub(crate) fn is_same(&self, options: &RegistryOptions) -> bool {
        Registry::new(options.clone()).is_ok_and(|registry| registry.name() == self.identity)
    }

    /// Asks the registry with other options from now on, for example with another password.
    pub(crate) fn change(&self, options: RegistryOptions) -> Result<(), RegistryError> {
        self.registry.store(Arc::new(Registry::new(options)?.with_one_attempt()));
        Ok(())
    }

    fn find(&self, query: &SchemaQuery, since: Instant) -> Option<SchemaAnswer> {
        lock(&self.cache).find(query, Instant::now(), since).cloned()
    }

    /// Obtains the answers to all of these queries. Lets others ask in between.
    async fn obtain(&self, queries: &BTreeSet<SchemaQuery>, since: Instant) -> Result<(), String> {
        let queries: Vec<&SchemaQuery> = queries.iter().collect();
        let mut first_error = None;
        for turn in queries.chunks(QUERIES_PER_TURN) {
            if let Err(reason) = self.take_turn(turn, since).await {
                first_error.get_or_insert(reason);
            }
        }
        if let Some(reason) = first_error {
            return Err(reason);
        }
        // The first ones may have become old meanwhile.
        let mut cache = lock(&self.cache);
        queries.iter().for_each(|query| cache.renew(query, Instant::now()));
        Ok(())
    }

    /// Obtains the answers to some queries, unless they have failed a moment ago.
    async fn take_turn(&self, queries: &[&SchemaQuery], since: Instant) -> Result<(), String> {
        let mut failures = self.failures.lock().await;
        let registry = self.registry.load_full();
        let mut first_error = None;
        let mut asked: Vec<BoxFuture<'_, (&SchemaQuery, Result<SchemaAnswer, RegistryError>)>> = Vec::new();
        for &query in queries.iter().filter(|query| self.find(query, since).is_none()) {
            match failures.current(query) {
                Some(failure) if failure.what != CHANGED && self.use_former(query) => {}
                Some(failure) => drop(first_error.get_or_insert(failure.to_string())),
                None => asked.push(ask_in_time(&registry, query).map(move |answer| (query, answer)).boxed()),
            }
        }
        let mut answers = stream::iter(asked).buffer_unordered(REQUESTS_AT_ONCE);
        let (mut has_answered, mut unanswered) = (false, Vec::new());
        while let Some((query, answer)) = answers.next().await {
            let failed = match answer {
                Ok(answer) => {
                    has_answered = true;
                    match self.keep(query, answer) {
                        Ok(()) => {
                            failures.queries.remove(query);
                            None
                        }
                        Err(reason) => Some(failures.note_query(query, CHANGED, reason)),
                    }
                }
                Err(error) if error.is_of_registry() => {
                    unanswered.push((query, error));
                    None
                }
                Err(error) => {
                    let what = if error.is_temporary() { UNREACHABLE } else { UNUSABLE };
                    let reason = failures.note_query(query, what, error.to_string());
                    (!self.use_former(query)).then_some(reason)
                }
            };
            if let Some(reason) = failed {
                first_error.get_or_insert(reason);
            }
        }
        if has_answered {
            failures.end_outage(registry.name());
        }
        let outage =
            unanswered.first().filter(|_| !has_answered).map(|(_, error)| failures.note_outage(error));
        for (query, error) in unanswered {
            let reason = match &outage {
                Some(outage) => outage.clone(),
                // It answers others.
                None => failures.note_query(query, UNREACHABLE, error.to_string()),
            };
            if !self.use_former(query) {
                first_error.get_or_insert(reason);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Keeps an answer, unless it differs from one that cannot change.
    fn keep(&self, query: &SchemaQuery, answer: SchemaAnswer) -> Result<(), String> {
        let changed = |advice: &str| {
            format!(
                "the schema registry {} has another schema now than before for {}{advice}",
                self.identity,
                describe(query)
            )
        };
        let known = self.folder.as_ref().and_then(|folder| Some((folder, run_long(|| folder.load(query))?)));
        match known {
            Some((_, before)) if matches!(answer, SchemaAnswer::Unknown(_)) => {
                tracing::warn!(
                    "the schema registry {} no longer has {}; the one on the disk is used",
                    self.identity,
                    describe(query)
                );
                // OK to ignore: what is known stays so.
                let _ = lock(&self.cache).insert(query.clone(), before, Instant::now());
                return Ok(());
            }
            Some((folder, before)) if before != answer => {
                let file = folder.path(query).unwrap_or_default();
                let advice = format!(": if that is right, delete {}, or its folder", file.display());
                return Err(changed(&advice));
            }
            _ => {}
        }
        let kept = lock(&self.cache).insert(query.clone(), answer.clone(), Instant::now());
        kept.map_err(|Changed| changed(": restart this process if that is right"))?;
        if let Some(folder) = &self.folder {
            run_long(|| folder.store(query, &answer));
        }
        Ok(())
    }

    /// Uses what the registry answered before. Returns whether there is such an answer.
    fn use_former(&self, query: &SchemaQuery) -> bool {
        if lock(&self.cache).use_stale(query, Instant::now()) {
            return true;
        }
        let Some(answer) = self.folder.as_ref().and_then(|folder| run_long(|| folder.load(query))) else {
            return false;
        };
        lock(&self.cache).insert(query.clone(), answer, Instant::now()).is_ok()
    }
}

/// Asks a registry, within the time of one request.
async fn ask_in_time(registry: &Registry, query: &SchemaQuery) -> Result<SchemaAnswer, RegistryError> {
    let answer = tokio::time::timeout(registry.timeout(), ask(registry, query));
    answer.await.unwrap_or_else(|_| Err(registry.late()))
}

async fn ask(registry: &Registry, query: &SchemaQuery) -> Result<SchemaAnswer, RegistryError> {
    let unknown = || Ok(unknown(query, registry.name()));
    let result = match query {
        // Registries count with signed numbers.
        SchemaQuery::Id(id) if i32::try_from(*id).is_err() => return unknown(),
        SchemaQuery::Id(id) => resolve(registry, WireId::Number(*id)).await,
        SchemaQuery::Guid(guid) => resolve(registry, WireId::Guid(*guid)).await,
        SchemaQuery::Latest(subject) => ask_version(registry, subject, VersionName::Latest).await,
        SchemaQuery::Version(subject, version) => match i32::try_from(*version) {
            Ok(number) if number > 0 => ask_version(registry, subject, VersionName::Number(number)).await,
            _ => return unknown(),
        },
        SchemaQuery::Register(subject, schema) => {
            let registered = registry.register(subject, schema).await;
            registered.map(|registered| SchemaAnswer::Registered(registered.id))
        }
    };
    match result {
        Err(RegistryError::NotFound { .. }) => unknown(),
        // Not every registry has GUIDs.
        Err(RegistryError::BadAnswer { status: 404, .. }) if matches!(query, SchemaQuery::Guid(_)) => {
            unknown()
        }
        Err(error @ RegistryError::Refused { .. }) => Ok(SchemaAnswer::Refused(error.to_string())),
        result => result,
    }
}

async fn resolve(registry: &Registry, id: WireId) -> Result<SchemaAnswer, RegistryError> {
    let schema = registry.schema_of(id).await?;
    Ok(SchemaAnswer::Schema(Arc::new(registry.resolve(schema).await?)))
}

async fn ask_version(
    registry: &Registry,
    subject: &str,
    version: VersionName,
) -> Result<SchemaAnswer, RegistryError> {
    let found = registry.version(subject, version).await?;
    // OK because numbers of versions are positive.
    Ok(SchemaAnswer::Version { version: found.version.unsigned_abs(), id: found.id })
}

/// The registry of a codec.
#[derive(Debug)]
pub(crate) struct CodecRegistry {
    registry: Arc<CachedRegistry>,
    /// Whether the codec may add schemas.
    may_register: bool,
    /// When it was loaded. What the registry did not have before is asked for again.
    since: Instant,
}

impl CodecRegistry {
    pub(crate) fn new(registry: Arc<CachedRegistry>, may_register: bool) -> Self {
        Self { registry, may_register, since: Instant::now() }
    }
}

impl SchemaSource for CodecRegistry {
    fn find(&self, query: &SchemaQuery) -> Option<SchemaAnswer> {
        if matches!(query, SchemaQuery::Register(..)) && !self.may_register {
            let reason =
                "the configuration does not let this codec add schemas: set register = true in [codecs.NAME]";
            return Some(SchemaAnswer::Refused(reason.to_owned()));
        }
        self.registry.find(query, self.since)
    }

    fn need(self: Arc<Self>, missing: MissingSchemas) -> Need {
        let (registry, since) = (self.registry.clone(), self.since);
        Need::new(NeededSchemas { registry, queries: missing.into_queries(), since })
    }

    fn identity(&self) -> String {
        // What it may do is part of it, so that a change takes effect.
        format!("{} {}", self.registry.identity, self.may_register)
    }
}

/// The answers that a call lacked.
#[derive(Debug)]
struct NeededSchemas {
    registry: Arc<CachedRegistry>,
    queries: BTreeSet<SchemaQuery>,
    since: Instant,
}

impl Obtain for NeededSchemas {
    fn obtain(&self) -> BoxFuture<'_, Result<(), String>> {
        self.registry.obtain(&self.queries, self.since).boxed()
    }
}
