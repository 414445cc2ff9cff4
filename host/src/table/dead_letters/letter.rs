//! A dead letter: a rejected record, unchanged, with headers that follow its own.

use crate::log::{Header, NewRecord, Offset, Partition, Record, TopicDescription};
use crate::table::reject::{RecordPart, RejectedRecord};

/// The headers of a dead letter, in this order, after those of the record.
const HEADERS: [&str; 8] = [
    "ktables.topic",
    "ktables.topic-id",
    "ktables.partition",
    "ktables.offset",
    "ktables.part",
    "ktables.kind",
    "ktables.reason",
    "ktables.component",
];

/// The maximum length of the reason in its header, in bytes.
const REASON_BYTES: usize = 4 * 1024;

/// A dead letter that is to be written.
#[derive(Debug)]
pub(in crate::table) struct DeadLetter {
    /// The identity of the topic of the rejected record.
    pub(super) topic_id: String,
    /// Its partition.
    pub(super) partition: Partition,
    /// Its offset.
    pub(super) offset: Offset,
    pub(super) record: NewRecord,
}

impl DeadLetter {
    pub(in crate::table) fn new(
        topic: &TopicDescription,
        record: &Record<'_>,
        reject: &RejectedRecord,
    ) -> Self {
        let reason = &reject.reason;
        let values = [
            Some(topic.name.clone()),
            Some(topic.id.clone()),
            Some(record.partition.to_string()),
            Some(record.offset.to_string()),
            Some(match reject.part {
                RecordPart::Key => "key".to_owned(),
                RecordPart::Value => "value".to_owned(),
            }),
            Some(reason.kind.name().to_owned()),
            Some(reason.message[..reason.message.floor_char_boundary(REASON_BYTES)].to_owned()),
            reason.component.as_ref().map(|component| component.digest.clone()),
        ];
        let headers = HEADERS
            .iter()
            .zip(values)
            .map(|(name, value)| Header { name: (*name).to_owned(), value: value.map(String::into_bytes) });
        let record_copy = NewRecord {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.iter().cloned().chain(headers).collect(),
            partition: None,
            // Not every log can store 0.
            timestamp: record.timestamp.filter(|&timestamp| timestamp > 0),
        };
        let (topic_id, partition, offset) = (topic.id.clone(), record.partition, record.offset);
        Self { topic_id, partition, offset, record: record_copy }
    }

    /// The bytes of memory that it uses.
    pub(in crate::table) fn byte_len(&self) -> usize {
        let headers = self.record.headers.len() * size_of::<Header>();
        size_of::<Self>() + self.topic_id.len() + self.record.byte_len() + headers
    }
}

/// A record of a dead-letter topic, as far as it is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ParsedLetter<'a> {
    pub(super) topic: &'a str,
    pub(super) topic_id: &'a str,
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    /// The headers of the rejected record.
    pub(super) headers: &'a [Header],
}

impl<'a> ParsedLetter<'a> {
    /// Returns `None` for a record that is no dead letter.
    pub(super) fn parse(record: &Record<'a>) -> Option<Self> {
        let (headers, own) =
            record.headers.split_at_checked(record.headers.len().checked_sub(HEADERS.len())?)?;
        if !own.iter().zip(HEADERS).all(|(header, name)| header.name == name) {
            return None;
        }
        let text = |index: usize| std::str::from_utf8(own[index].value.as_deref()?).ok();
        Some(Self {
            topic: text(0)?,
            topic_id: text(1)?,
            partition: text(2)?.parse().ok()?,
            offset: text(3)?.parse().ok()?,
            headers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{RejectKind, RejectReason};
    use crate::log::RecordBatch;

    #[test]
    fn a_dead_letter_leads_back_to_its_record() {
        let topic = TopicDescription { name: "t".to_owned(), id: "id".to_owned(), partitions: 4 };
        let forged = Header { name: "ktables.offset".to_owned(), value: Some(b"9".to_vec()) };
        let mut batch = RecordBatch::new(3);
        batch.push(7, Some(5), None, Some(b"raw"), vec![forged.clone()]);
        let reject = RejectedRecord {
            partition: 3,
            offset: 7,
            timestamp: Some(5),
            key: None,
            group: None,
            part: RecordPart::Value,
            reason: RejectReason::without_component(RejectKind::Keyless, "é".repeat(REASON_BYTES)),
            raw: Vec::new(),
            raw_len: 3,
        };
        let letter = DeadLetter::new(&topic, &batch.get(0), &reject);
        let NewRecord { key, value, headers, timestamp, .. } = letter.record;
        assert_eq!((&key, value.as_deref(), timestamp), (&None, Some(&b"raw"[..]), Some(5)));
        assert!(headers.iter().all(|header| header.value.as_ref().is_none_or(|v| v.len() <= REASON_BYTES)));
        let mut written = RecordBatch::new(0);
        written.push(0, timestamp, key.as_deref(), value.as_deref(), headers);
        let parsed = ParsedLetter::parse(&written.get(0)).unwrap();
        assert_eq!((parsed.topic, parsed.topic_id, parsed.partition, parsed.offset), ("t", "id", 3, 7));
        assert_eq!(parsed.headers, [forged]);
        assert_eq!(ParsedLetter::parse(&batch.get(0)), None, "a record with one such header");
    }
}
