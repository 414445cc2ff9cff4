//! The partitioner: chooses the same partition for a key as the default partitioner of Kafka's Java client,
//! so that all writers of a topic agree.

use crate::log::Partition;

/// Returns the partition of a key in a topic with this number of partitions.
pub(crate) fn partition_for(key: &[u8], partitions: Partition) -> Partition {
    partition_of_hash(key_hash(key), partitions)
}

/// Returns the murmur2 hash of a key, with Kafka's seed and the sign bit cleared.
pub(crate) fn key_hash(key: &[u8]) -> i32 {
    let hash = murmur2::murmur2(key, murmur2::KAFKA_SEED) & 0x7fff_ffff;
    // OK because the sign bit is cleared.
    i32::try_from(hash).expect("31 bits fit into an i32")
}

/// Returns the partition of a key with this [`key_hash`] in a topic with this number of partitions.
pub(crate) fn partition_of_hash(hash: i32, partitions: Partition) -> Partition {
    hash % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the test vectors of `UtilsTest.testMurmur2` in Kafka.
    #[test]
    fn hashes_equal_those_of_kafka() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            let positive = i64::from(hash) & 0x7fff_ffff;
            assert_eq!(
                i64::from(partition_for(key.as_bytes(), i32::MAX)),
                positive % i64::from(i32::MAX),
                "{key}"
            );
        }
    }
}
