//! The events of a watch, as a server has sent them, to be printed as those of a watch without a server.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::wire::entry::{EntryJson, NoticeJson};
use crate::wire::event::{ChangeJson, EventJson, PlainEventJson, RejectedJson};

/// An event of a watch. `kind_of_event` says which members it has.
#[derive(Debug, Deserialize)]
pub(crate) struct ServerEvent {
    #[serde(rename = "type")]
    kind_of_event: String,
    key: Option<String>,
    #[serde(default, deserialize_with = "deserialize_present")]
    value: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "deserialize_present")]
    old: Option<Box<RawValue>>,
    cause: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    timestamp: Option<i64>,
    kind: Option<String>,
    message: Option<String>,
    status: Option<String>,
    reason: Option<String>,
    missed: Option<u64>,
    /// Where to resume after this event.
    pub(crate) id: Option<String>,
}

/// Deserializes a member that is present, so that JSON `null` becomes `Some`.
fn deserialize_present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<RawValue>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl ServerEvent {
    /// Whether it is one of a list of entries.
    pub(crate) fn is_entry(&self) -> bool {
        self.kind_of_event == "entry"
    }

    /// Whether it says that a list of entries is complete.
    pub(crate) fn is_synced(&self) -> bool {
        self.kind_of_event == "synced"
    }

    /// Whether a list of entries follows.
    pub(crate) fn is_restarted(&self) -> bool {
        self.kind_of_event == "restarted"
    }

    /// Returns the status of the table with its reason, if the event tells it.
    pub(crate) fn status(&self) -> Option<(String, Option<String>)> {
        Some((self.status.clone()?, self.reason.clone()))
    }

    /// Returns what is printed of the event; `None` for one that is about the connection.
    pub(crate) fn to_json(&self) -> Option<EventJson<'_>> {
        let key = self.key.as_deref();
        let (partition, offset) = (self.partition.unwrap_or_default(), self.offset.unwrap_or_default());
        let plain = PlainEventJson::new;
        Some(match &*self.kind_of_event {
            "entry" => EventJson::Entry(EntryJson {
                key: key?,
                value: self.value.as_deref()?,
                partition,
                offset,
                timestamp: self.timestamp,
                expired: false,
                rejected: None,
            }),
            "put" | "delete" => EventJson::Change(ChangeJson {
                key: key?,
                old: self.old.as_deref(),
                new: self.value.as_deref(),
                delete: self.kind_of_event == "delete",
                cause: self.cause.as_deref(),
                partition,
                offset,
                timestamp: self.timestamp,
            }),
            "rejected" => EventJson::Rejected(RejectedJson {
                event: "rejected",
                key,
                notice: NoticeJson {
                    partition,
                    offset,
                    kind: self.kind.as_deref().unwrap_or_default(),
                    message: self.message.as_deref().unwrap_or_default(),
                },
            }),
            "synced" => EventJson::Plain(plain("synced")),
            "restarted" => EventJson::Plain(plain("restarted")),
            "generation" => EventJson::Plain(plain("generation")),
            "missed" => EventJson::Plain(PlainEventJson { missed: self.missed, ..plain("lagged") }),
            "status" => EventJson::Plain(PlainEventJson {
                status: self.status.as_deref(),
                reason: self.reason.clone(),
                ..plain("status")
            }),
            _ => return None,
        })
    }
}
