//! Entries and notices.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::table::{Entry, RejectNotice, Table};

/// An entry.
#[derive(Debug, Serialize)]
pub(crate) struct EntryJson<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a RawValue,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) timestamp: Option<i64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) expired: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rejected: Option<NoticeJson<'a>>,
}

/// The notice that the newest record of the key was rejected.
#[derive(Debug, Serialize)]
pub(crate) struct NoticeJson<'a> {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) kind: &'a str,
    pub(super) message: &'a str,
}

impl<'a> NoticeJson<'a> {
    pub(crate) fn new(notice: &'a RejectNotice) -> Self {
        Self {
            partition: notice.partition,
            offset: notice.offset,
            kind: notice.kind.name(),
            message: &notice.message,
        }
    }
}

impl<'a> EntryJson<'a> {
    pub(crate) fn new(entry: &'a Entry) -> Self {
        Self {
            key: entry.key(),
            value: raw_json(entry.json()),
            partition: entry.partition(),
            offset: entry.offset(),
            timestamp: entry.timestamp(),
            expired: false,
            rejected: None,
        }
    }

    /// Adds the notice that the newest record of the key was rejected, if there is one.
    pub(crate) fn with_notice(self, notice: Option<&'a RejectNotice>) -> Self {
        Self { rejected: notice.map(NoticeJson::new), ..self }
    }

    /// Marks the entry as expired.
    pub(crate) fn mark_expired(self) -> Self {
        Self { expired: true, ..self }
    }
}

/// Returns JSON text as a value that is serialized unchanged.
pub(super) fn raw_json(json: &str) -> &RawValue {
    // OK because a table holds validated JSON only.
    serde_json::from_str(json).expect("validated JSON")
}

/// The entry of one key, if there is one, with everything that is known about it.
#[derive(Debug, Serialize)]
pub(crate) struct EntryDetails<'a> {
    status: &'static str,
    generation: u64,
    key: Option<&'a str>,
    group: Option<&'a str>,
    member: Option<&'a str>,
    value: Option<&'a RawValue>,
    partition: Option<i32>,
    offset: Option<i64>,
    timestamp: Option<i64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    expired: bool,
    rejected: Option<NoticeJson<'a>>,
}

impl<'a> EntryDetails<'a> {
    pub(crate) fn new(
        table: &Table,
        entry: Option<&'a Entry>,
        expired: bool,
        notice: Option<&'a RejectNotice>,
    ) -> Self {
        Self {
            status: table.status().name(),
            generation: table.stats().generation,
            key: entry.map(Entry::key),
            group: entry.and_then(Entry::group),
            member: entry.and_then(Entry::member),
            value: entry.map(|entry| raw_json(entry.json())),
            partition: entry.map(Entry::partition),
            offset: entry.map(Entry::offset),
            timestamp: entry.and_then(Entry::timestamp),
            expired,
            rejected: notice.map(NoticeJson::new),
        }
    }
}

/// A member of a group.
#[derive(Debug, Serialize)]
pub(crate) struct MemberJson<'a> {
    member: &'a str,
    value: &'a RawValue,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
}

impl<'a> MemberJson<'a> {
    pub(crate) fn new(entry: &'a Entry) -> Self {
        Self {
            member: entry.member().unwrap_or_default(),
            value: raw_json(entry.json()),
            partition: entry.partition(),
            offset: entry.offset(),
            timestamp: entry.timestamp(),
        }
    }
}

/// A group, with the number of its members.
#[derive(Debug, Serialize)]
pub(crate) struct GroupJson<'a> {
    pub(crate) group: &'a str,
    pub(crate) members: usize,
}
