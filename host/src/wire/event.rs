//! The events that a watcher receives.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::table::{Cause, Change, Entry, RejectNotice, Status, WatchEvent};
use crate::wire::entry::{EntryJson, NoticeJson, raw_json};

/// An event that a watcher receives.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum EventJson<'a> {
    Entry(EntryJson<'a>),
    Change(ChangeJson<'a>),
    Rejected(RejectedJson<'a>),
    Plain(PlainEventJson<'a>),
}

impl<'a> EventJson<'a> {
    pub(crate) fn new(event: &'a WatchEvent) -> Self {
        let plain = PlainEventJson::new;
        match event {
            WatchEvent::Entry(entry) => Self::Entry(EntryJson::new(entry)),
            WatchEvent::Change(change) => Self::Change(ChangeJson::new(change)),
            WatchEvent::Rejected { key, notice } => Self::Rejected(RejectedJson::new(key.as_deref(), notice)),
            WatchEvent::Synced => Self::Plain(plain("synced")),
            WatchEvent::Restarted => Self::Plain(plain("restarted")),
            WatchEvent::Status(status) => Self::Plain(PlainEventJson::status(status)),
            WatchEvent::Generation(number) => {
                Self::Plain(PlainEventJson { generation: Some(*number), ..plain("generation") })
            }
            WatchEvent::Lagged(missed) => {
                Self::Plain(PlainEventJson { missed: Some(*missed), ..plain("lagged") })
            }
        }
    }
}

/// A change of an entry. `old` and `new` are null if there was or is no entry. A deletion is marked, because a
/// value may be JSON `null`.
#[derive(Debug, Serialize)]
pub(crate) struct ChangeJson<'a> {
    pub(super) key: &'a str,
    pub(super) old: Option<&'a RawValue>,
    pub(super) new: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) delete: bool,
    /// Why the entry changed, if no record changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<&'a str>,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) timestamp: Option<i64>,
}

impl<'a> ChangeJson<'a> {
    fn new(change: &'a Change) -> Self {
        let value = |entry: &'a Option<Entry>| entry.as_ref().map(|entry| raw_json(entry.json()));
        Self {
            key: change.key(),
            old: value(&change.old),
            new: value(&change.new),
            delete: change.new.is_none(),
            cause: (change.cause != Cause::Record).then(|| change.cause.name()),
            partition: change.partition,
            offset: change.offset,
            timestamp: change.timestamp,
        }
    }
}

/// A rejected record.
#[derive(Debug, Serialize)]
pub(crate) struct RejectedJson<'a> {
    pub(super) event: &'static str,
    /// `None` if the record has no key, or a key that cannot be decoded.
    pub(super) key: Option<&'a str>,
    #[serde(flatten)]
    pub(super) notice: NoticeJson<'a>,
}

impl<'a> RejectedJson<'a> {
    fn new(key: Option<&'a str>, notice: &'a RejectNotice) -> Self {
        Self { event: "rejected", key, notice: NoticeJson::new(notice) }
    }
}

/// An event that is not about a single entry.
#[derive(Debug, Serialize)]
pub(crate) struct PlainEventJson<'a> {
    pub(super) event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) missed: Option<u64>,
}

impl PlainEventJson<'_> {
    pub(super) fn new(event: &'static str) -> Self {
        Self { event, status: None, reason: None, generation: None, missed: None }
    }

    fn status(status: &Status) -> Self {
        Self { status: Some(status.name()), reason: status.reason(), ..Self::new("status") }
    }
}
