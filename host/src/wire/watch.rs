//! The events of a watch, as a server sends them.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::log::{Offset, Partition};
use crate::table::{Cause, Change, Entry, RejectNotice, Status, WatchEvent};
use crate::wire::entry::raw_json;

/// An event of a watch. `type` says which members it has.
#[derive(Debug, Default, Serialize)]
pub(crate) struct WatchJson<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<Partition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<Offset>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interval_seconds: Option<u64>,
    /// Where to resume after this event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
}

impl<'a> WatchJson<'a> {
    /// Creates an event that has only a type.
    pub(crate) fn plain(r#type: &'static str) -> Self {
        Self { r#type, ..Self::default() }
    }

    /// Creates an event from the end of a watch, or about its server.
    pub(crate) fn with_reason(r#type: &'static str, reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), ..Self::plain(r#type) }
    }

    pub(crate) fn status(status: &Status) -> Self {
        Self { status: Some(status.name()), reason: status.reason(), ..Self::plain("status") }
    }

    /// Creates the JSON form of what a watcher received. `has_old` says whether changes have the value before.
    pub(crate) fn new(event: &'a WatchEvent, has_old: bool) -> Self {
        match event {
            WatchEvent::Entry(entry) => Self::entry(entry),
            WatchEvent::Change(change) => Self::change(change, has_old),
            WatchEvent::Rejected { key, notice } => Self::rejected(key.as_deref(), notice),
            WatchEvent::Synced => Self::plain("synced"),
            WatchEvent::Restarted => Self::plain("restarted"),
            WatchEvent::Status(status) => Self::status(status),
            // Its number differs between processes.
            WatchEvent::Generation(_) => Self::plain("generation"),
            WatchEvent::Lagged(missed) => Self { missed: Some(*missed), ..Self::plain("missed") },
        }
    }

    fn entry(entry: &'a Entry) -> Self {
        Self {
            key: Some(entry.key()),
            value: Some(raw_json(entry.json())),
            partition: Some(entry.partition()),
            offset: Some(entry.offset()),
            timestamp: entry.timestamp(),
            ..Self::plain("entry")
        }
    }

    fn change(change: &'a Change, has_old: bool) -> Self {
        let old = change.old.as_ref().filter(|_| has_old);
        Self {
            key: Some(change.key()),
            value: change.new.as_ref().map(|entry| raw_json(entry.json())),
            old: old.map(|entry| raw_json(entry.json())),
            cause: (change.cause != Cause::Record).then(|| change.cause.name()),
            partition: Some(change.partition),
            offset: Some(change.offset),
            timestamp: change.timestamp,
            ..Self::plain(if change.new.is_some() { "put" } else { "delete" })
        }
    }

    fn rejected(key: Option<&'a str>, notice: &'a RejectNotice) -> Self {
        Self {
            key,
            partition: Some(notice.partition),
            offset: Some(notice.offset),
            kind: Some(notice.kind.name()),
            message: Some(&notice.message),
            ..Self::plain("rejected")
        }
    }
}
