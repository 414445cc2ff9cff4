//! First and end offsets of partitions.

use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::error::IsError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset as Position, TopicPartitionList};

use crate::log::kafka::ffi::client::{Client, millis};
use crate::log::{Offset, OffsetRange, Partition};

/// The offset of a partition that [`list_offsets`] requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::kafka) enum OffsetKind {
    /// The log start offset: that of the first record.
    First,
    /// The end offset, which the next record gets. Brokers answer a client that reads only committed records
    /// with the last stable offset: that of the first record of an open transaction, or the end offset if no
    /// transaction is open.
    End,
}

/// The offset of one partition of a topic, or why there is none.
pub(in crate::log::kafka) type ListedOffset = (String, Partition, Result<Offset, RDKafkaErrorCode>);

/// Requests one offset of each of these partitions from their leaders. Blocks until all leaders have answered,
/// or until the timeout is over. Returns an offset or an error for each partition.
///
/// The admin API's `ListOffsets` would not block, but must not be used: it begins the request on the calling
/// thread, and if a leader is not known, the client's own thread may finish and free the request meanwhile
/// (librdkafka 2.12.1).
///
/// # Errors
///
/// If a leader does not answer, or answers with an error for one of its partitions.
#[allow(unsafe_code, reason = "calls into librdkafka")]
pub(in crate::log::kafka) fn list_offsets<'a>(
    client: &Client,
    partitions: impl IntoIterator<Item = (&'a str, Partition)>,
    kind: OffsetKind,
    timeout: Duration,
) -> Result<Vec<ListedOffset>, RDKafkaErrorCode> {
    let wanted = match kind {
        OffsetKind::First => Position::Beginning,
        OffsetKind::End => Position::End,
    };
    let mut list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        // OK because `Beginning` and `End` are valid offsets.
        list.add_partition_offset(topic, partition, wanted).expect("a valid offset");
    }
    if list.count() == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: client and list are alive; the answers are written into the list. In a request for the offsets
    // of times, the two kinds are the times -2 and -1.
    let code = unsafe { sys::rd_kafka_offsets_for_times(client.rk(), list.ptr(), millis(timeout)) };
    match code.into() {
        // No partition has a leader. The list says why.
        RDKafkaErrorCode::UnknownPartition => {}
        failure if code.is_error() => return Err(failure),
        _ => {}
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
    Ok(listed.collect())
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
