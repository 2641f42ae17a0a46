//! The partition of a key, computed as in Apache Kafka's Java client, so that producers and consumers in
//! every language agree.

use std::fmt;

use crate::Key;

/// The number of a partition within its topic, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i32);

impl Partition {
    /// Computes the partition of `key` in a topic of `count` partitions (at least 1): murmur2 of the key's UTF-8 bytes
    /// without the sign bit, modulo the count.
    pub fn of(key: &Key, count: i32) -> Self {
        let positive = (murmur2(key.as_str().as_bytes()) & 0x7fff_ffff).cast_signed();
        Self(positive % count.max(1))
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// MurmurHash2, 32 bits, with the seed that Kafka uses.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // Kafka hashes byte arrays, whose length is an `i32`. A key is far shorter.
    let mut hash = SEED ^ u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut words = data.chunks_exact(4);
    for word in words.by_ref() {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k = (k ^ (k >> R)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (position, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * position);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expectations of `UtilsTest.testMurmur2` in Apache Kafka.
    #[test]
    fn hashes_equal_those_of_the_java_client() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }

    #[test]
    fn a_partition_is_always_within_the_count() {
        for number in 0..1000 {
            let partition = Partition::of(&Key::new(format!("user_{number}")), 7);
            assert!((0..7).contains(&partition.0));
        }
    }
}
