//! The answers of a schema registry that the host has, in memory.

use std::time::{Duration, Instant};

use lru::LruCache;

use crate::escape::escape_name;
use crate::registry::source::UNKNOWN_SCHEMA;
use crate::registry::{ResolvedSchema, SchemaAnswer, SchemaQuery};

/// How many bytes of schemas are kept.
const MAX_BYTES: usize = 256 << 20;

/// How long the newest version of a subject counts as the newest one.
pub(super) const VERSION_TTL: Duration = Duration::from_secs(60);

/// How long something that the registry does not have, or refuses, is not asked for again.
pub(super) const REFUSAL_TTL: Duration = Duration::from_secs(30);

/// The answers that the host has.
#[derive(Debug)]
pub(super) struct SchemaCache {
    answers: LruCache<SchemaQuery, Cached>,
    bytes: usize,
}

#[derive(Debug)]
struct Cached {
    answer: SchemaAnswer,
    obtained: Instant,
    /// Until when it counts; `None` if it never changes.
    until: Option<Instant>,
}

/// The registry has another answer now than before, although it cannot change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Changed;

impl SchemaCache {
    pub(super) fn new() -> Self {
        Self { answers: LruCache::unbounded(), bytes: 0 }
    }

    /// Returns an answer that still counts. A refusal counts only if it was obtained after `since`.
    pub(super) fn find(
        &mut self,
        query: &SchemaQuery,
        now: Instant,
        since: Instant,
    ) -> Option<&SchemaAnswer> {
        let cached = self.answers.get(query)?;
        let is_current = cached.until.is_none_or(|until| now < until)
            && (cached.obtained >= since || !is_refusal(&cached.answer));
        is_current.then_some(&cached.answer)
    }

    /// Lets an answer count that may have become old while others were obtained: the call that needs them all is made now.
    pub(super) fn renew(&mut self, query: &SchemaQuery, now: Instant) {
        if let Some(cached) = self.answers.get_mut(query) {
            cached.until = ttl(query, &cached.answer).map(|ttl| now + ttl);
        }
    }

    /// Lets an answer count that no longer does, because the registry cannot be asked. Returns whether there is one. What the
    /// registry did not have then, it may have now.
    pub(super) fn use_stale(&mut self, query: &SchemaQuery, now: Instant) -> bool {
        let is_usable = self.answers.peek(query).is_some_and(|cached| !is_refusal(&cached.answer));
        if is_usable {
            self.renew(query, now);
        }
        is_usable
    }

    /// Keeps an answer.
    ///
    /// # Errors
    ///
    /// If another one is kept that cannot change.
    pub(super) fn insert(
        &mut self,
        query: SchemaQuery,
        answer: SchemaAnswer,
        now: Instant,
    ) -> Result<(), Changed> {
        match self.answers.get(&query) {
            Some(Cached { answer: known, until: None, .. }) if !is_refusal(&answer) && *known != answer => {
                return Err(Changed);
            }
            // What is known stays so.
            Some(Cached { until: None, .. }) => return Ok(()),
            _ => {}
        }
        let until = ttl(&query, &answer).map(|ttl| now + ttl);
        self.bytes += query.byte_len() + answer_bytes(&answer);
        let cached = Cached { answer, obtained: now, until };
        if let Some((query, before)) = self.answers.push(query, cached) {
            self.bytes -= query.byte_len() + answer_bytes(&before.answer);
        }
        // The registry, or the disk, still has those that were not used for longest.
        while self.bytes > MAX_BYTES && self.answers.len() > 1 {
            let Some((query, oldest)) = self.answers.pop_lru() else { break };
            self.bytes -= query.byte_len() + answer_bytes(&oldest.answer);
        }
        Ok(())
    }
}

fn is_refusal(answer: &SchemaAnswer) -> bool {
    matches!(answer, SchemaAnswer::Unknown(_) | SchemaAnswer::Refused(_))
}

/// How long an answer counts; `None` if it never changes.
fn ttl(query: &SchemaQuery, answer: &SchemaAnswer) -> Option<Duration> {
    match query {
        _ if is_refusal(answer) => Some(REFUSAL_TTL),
        // A subject that is deleted begins again with version 1.
        SchemaQuery::Latest(_) | SchemaQuery::Version(..) => Some(VERSION_TTL),
        SchemaQuery::Id(_) | SchemaQuery::Guid(_) | SchemaQuery::Register(..) => None,
    }
}

/// Names what a query asks for.
pub(super) fn describe(query: &SchemaQuery) -> String {
    match query {
        SchemaQuery::Id(id) => format!("the schema with id {id}"),
        SchemaQuery::Guid(guid) => format!("the schema with GUID {guid}"),
        SchemaQuery::Latest(subject) => format!("the newest version of subject `{}`", escape_name(subject)),
        SchemaQuery::Version(subject, version) => {
            format!("version {version} of subject `{}`", escape_name(subject))
        }
        SchemaQuery::Register(subject, _) => format!("the schema for subject `{}`", escape_name(subject)),
    }
}

/// The answer for something that the registry does not have.
pub(super) fn unknown(query: &SchemaQuery, registry: &str) -> SchemaAnswer {
    SchemaAnswer::Unknown(format!(
        "{UNKNOWN_SCHEMA}the schema registry {registry} does not have {}",
        describe(query)
    ))
}

fn answer_bytes(answer: &SchemaAnswer) -> usize {
    size_of::<Cached>()
        + match answer {
            SchemaAnswer::Schema(schema) => schema_bytes(schema),
            SchemaAnswer::Version { .. } | SchemaAnswer::Registered(_) => 0,
            SchemaAnswer::Unknown(reason) | SchemaAnswer::Refused(reason) => reason.len(),
        }
}

fn schema_bytes(schema: &ResolvedSchema) -> usize {
    let references = schema.references.iter().map(|(name, text)| name.len() + text.len());
    size_of::<ResolvedSchema>() + schema.text.len() + references.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::registry::SchemaType;

    fn schema(text: &str) -> SchemaAnswer {
        let text = text.to_owned();
        SchemaAnswer::Schema(Arc::new(ResolvedSchema {
            schema_type: SchemaType::Avro,
            text,
            references: Vec::new(),
        }))
    }

    #[test]
    fn a_schema_never_changes_and_a_refusal_passes() {
        let (mut cache, now) = (SchemaCache::new(), Instant::now());
        let late = now + REFUSAL_TTL;
        let id = SchemaQuery::Id(1);
        cache.insert(id.clone(), unknown(&id, "r"), now).unwrap();
        assert!(matches!(cache.find(&id, now, now), Some(SchemaAnswer::Unknown(_))));
        assert_eq!(cache.find(&id, late, now), None, "it is asked for again");
        assert_eq!(cache.find(&id, now, late), None, "another codec asks again");
        assert!(!cache.use_stale(&id, late), "the registry may have it by now");
        cache.renew(&id, late);
        assert!(cache.find(&id, late, now).is_some(), "the call that asked for it sees it");
        cache.insert(id.clone(), schema("a"), late).unwrap();
        cache.insert(id.clone(), schema("a"), late).unwrap();
        assert_eq!(cache.insert(id.clone(), schema("b"), late), Err(Changed));
        cache.insert(id.clone(), unknown(&id, "r"), late).unwrap();
        assert_eq!(cache.find(&id, late + VERSION_TTL, late), Some(&schema("a")));
    }

    #[test]
    fn the_newest_version_counts_for_a_while() {
        let (mut cache, now) = (SchemaCache::new(), Instant::now());
        let query = SchemaQuery::Latest("s".to_owned());
        let version = |version| SchemaAnswer::Version { version, id: version };
        cache.insert(query.clone(), version(1), now).unwrap();
        let late = now + VERSION_TTL;
        assert_eq!(cache.find(&query, late, now), None);
        assert!(cache.use_stale(&query, late), "the registry does not answer");
        assert_eq!(cache.find(&query, late, now), Some(&version(1)));
        cache.insert(query.clone(), version(2), late).unwrap();
        assert_eq!(cache.find(&query, late, now), Some(&version(2)));
    }

    #[test]
    fn the_bytes_of_all_schemas_are_bounded() {
        let (mut cache, now) = (SchemaCache::new(), Instant::now());
        let large = "x".repeat(8 << 20);
        for id in 0..100 {
            cache.insert(SchemaQuery::Id(id), schema(&large), now).unwrap();
        }
        assert!(cache.bytes <= MAX_BYTES && cache.answers.len() > 20, "{}", cache.answers.len());
        assert!(cache.find(&SchemaQuery::Id(99), now, now).is_some(), "the newest one stays");
        assert_eq!(cache.find(&SchemaQuery::Id(0), now, now), None);
    }
}
