//! Where a key goes: the choice of Java's default partitioner, so that every
//! writer of a topic agrees.

use crate::log::Partition;

/// The partition of a key, one of `partitions`.
pub(crate) fn partition_for(key: &[u8], partitions: Partition) -> Partition {
    partition_of_hash(key_hash(key), partitions)
}

/// murmur2 of a key with Kafka's seed, the sign bit cleared.
pub(crate) fn key_hash(key: &[u8]) -> i32 {
    let hash = murmur2::murmur2(key, murmur2::KAFKA_SEED) & 0x7fff_ffff;
    // OK because the sign bit is clear.
    i32::try_from(hash).expect("31 bits fit")
}

/// The partition of a key by its [`key_hash`], one of `partitions`.
pub(crate) fn partition_of_hash(hash: i32, partitions: Partition) -> Partition {
    hash % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_are_kafkas() {
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
