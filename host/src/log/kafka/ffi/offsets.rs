//! Requests for offsets of partitions.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset as Position, TopicPartitionList};

use crate::log::kafka::ffi::client::{Client, millis};
use crate::log::{Offset, OffsetRange, Partition};

/// The codes of errors that librdkafka finds itself. All others come from brokers.
const LOCAL_ERRORS: RangeInclusive<i32> = -200..=-100;

/// After how many requests [`list_offsets`] no longer halves a list to find the partitions with errors.
const MAX_QUERIES: usize = 64;

/// The offset of a partition that [`list_offsets`] requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::kafka) enum OffsetKind {
    /// The log start offset: that of the first record.
    First,
    /// The end offset: the high watermark, which the next record gets. Needs a client that also reads
    /// uncommitted records.
    End,
    /// The last stable offset: that of the first record of an open transaction, or the high watermark if no
    /// transaction is open. Needs a client that reads only committed records.
    LastStable,
}

/// The offset of one partition of a topic, or why there is none.
pub(in crate::log::kafka) type ListedOffset = (String, Partition, Result<Offset, RDKafkaErrorCode>);

/// Requests one offset of each of these partitions from their leaders, and returns an offset or an error for each.
/// Blocks until all leaders have answered, or until the timeout is over.
///
/// The admin API's `ListOffsets` would not block, but it can crash (librdkafka 2.12.1). It begins the request on the
/// calling thread. While a partition has no leader, the client's own thread may finish the request and free it,
/// although the calling thread still uses it.
///
/// # Errors
///
/// If a leader does not answer, or if nobody was asked because no partition has a leader that the client knows.
pub(in crate::log::kafka) fn list_offsets(
    client: &Client,
    partitions: &[(String, Partition)],
    kind: OffsetKind,
    timeout: Duration,
) -> Result<Vec<ListedOffset>, RDKafkaErrorCode> {
    let began = Instant::now();
    let (mut listed, mut pending, mut queries) = (Vec::new(), vec![partitions], 0);
    while let Some(part) = pending.pop() {
        queries += 1;
        match query(client, part, kind, timeout.saturating_sub(began.elapsed())) {
            Ok(answers) => listed.extend(answers),
            Err(QueryError::NoLeader(answers)) => {
                if let (1, Some((_, _, Err(code)))) = (queries, answers.first()) {
                    return Err(*code);
                }
                listed.extend(answers);
            }
            Err(QueryError::Local(code)) if queries == 1 => return Err(code),
            // It takes the place of all answers. Halving finds the partition that it is about.
            Err(QueryError::Broker(_)) if part.len() > 1 && queries < MAX_QUERIES => {
                let (first, second) = part.split_at(part.len() / 2);
                pending.extend([second, first]);
            }
            Err(QueryError::Local(code) | QueryError::Broker(code)) => {
                listed.extend(part.iter().map(|(topic, partition)| (topic.clone(), *partition, Err(code))));
            }
        }
    }
    Ok(listed)
}

/// Why a request has no answer.
enum QueryError {
    /// Nobody was asked: the client knows no leader of any partition. Each has its own error.
    NoLeader(Vec<ListedOffset>),
    /// The client found the error itself, for example that a leader did not answer.
    Local(RDKafkaErrorCode),
    /// A broker answered with this error for at least one partition.
    Broker(RDKafkaErrorCode),
}

/// Sends one request to each leader of these partitions, and waits for the answers.
#[allow(unsafe_code, reason = "calls into librdkafka")]
fn query(
    client: &Client,
    partitions: &[(String, Partition)],
    kind: OffsetKind,
    timeout: Duration,
) -> Result<Vec<ListedOffset>, QueryError> {
    let wanted = match kind {
        OffsetKind::First => Position::Beginning,
        OffsetKind::End | OffsetKind::LastStable => Position::End,
    };
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        // OK because `Beginning` and `End` are valid offsets. `add_partition_offset` would search the list.
        list.add_partition(topic, *partition).set_offset(wanted).expect("a valid offset");
    }
    // SAFETY: client and list are alive; the answers are written into the list.
    //
    // The call takes times instead of offsets. `Beginning` and `End` are the numbers -2 and -1, which Kafka's
    // protocol reserves for the first and the end offset.
    let code = unsafe { sys::rd_kafka_offsets_for_times(client.rk(), list.ptr(), millis(timeout)) };
    let code = RDKafkaErrorCode::from(code);
    let has_no_leader = code == RDKafkaErrorCode::UnknownPartition;
    if code != RDKafkaErrorCode::NoError && !has_no_leader {
        let is_local = LOCAL_ERRORS.contains(&(code as i32));
        return Err(if is_local { QueryError::Local(code) } else { QueryError::Broker(code) });
    }
    let listed = list.elements().into_iter().map(|element| {
        let offset = match (element.error(), element.offset()) {
            (Err(error), _) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
            (Ok(()), Position::Offset(offset)) => Ok(offset),
            // Nobody answered for this partition.
            (Ok(()), _) => Err(RDKafkaErrorCode::LeaderNotAvailable),
        };
        (element.topic().to_owned(), element.partition(), offset)
    });
    let listed = listed.collect();
    if has_no_leader { Err(QueryError::NoLeader(listed)) } else { Ok(listed) }
}

/// Combines first and end offsets to ranges, ordered by partition. Partitions without both are left out.
pub(in crate::log::kafka) fn join_ranges(
    first: &[(Partition, Offset)],
    end: &[(Partition, Offset)],
) -> Vec<OffsetRange> {
    let end_of = |partition| end.iter().find(|listed| listed.0 == partition).map(|listed| listed.1);
    let range = |&(partition, start): &(Partition, Offset)| {
        end_of(partition).map(|end| OffsetRange { partition, start, end })
    };
    let mut ranges: Vec<OffsetRange> = first.iter().filter_map(range).collect();
    ranges.sort_by_key(|range| range.partition);
    ranges
}
