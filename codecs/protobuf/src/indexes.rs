//! Which message type of a file a record has: the index of a type, that of a type in it, and so on.

use ktables_guest::CodecError;

/// How deep message types can be nested.
const MAX_DEPTH: usize = 100;

/// The indexes of a message type in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Indexes(pub(crate) Vec<usize>);

impl Indexes {
    /// Reads indexes: their number and each of them as zigzag varints, or the byte 0 for the first message type. Returns
    /// the bytes behind them, too.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), CodecError> {
        let malformed = |what: &str| CodecError::Malformed(format!("its message indexes {what}"));
        let read = |bytes| read_varint(bytes).ok_or_else(|| malformed("are cut off, negative or too large"));
        let (count, mut rest) = read(bytes)?;
        if count == 0 {
            return Ok((Self(vec![0]), rest));
        }
        if count > MAX_DEPTH {
            return Err(malformed(&format!("are {count}, and at most {MAX_DEPTH} are possible")));
        }
        let mut indexes = Vec::with_capacity(count);
        for _ in 0..count {
            let (index, after) = read(rest)?;
            indexes.push(index);
            rest = after;
        }
        Ok((Self(indexes), rest))
    }

    /// Returns the bytes of the indexes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        if self.0 == [0] {
            return vec![0];
        }
        let mut bytes = Vec::new();
        for number in [self.0.len()].iter().chain(&self.0) {
            // Zigzag of a number that is not negative.
            buffa::encoding::encode_varint(*number as u64 * 2, &mut bytes);
        }
        bytes
    }
}

/// Reads a zigzag varint. Returns `None` if it has no end, or is negative or too large.
fn read_varint(mut bytes: &[u8]) -> Option<(usize, &[u8])> {
    let zigzag = buffa::encoding::decode_varint(&mut bytes).ok()?;
    let number = (zigzag % 2 == 0).then_some(zigzag / 2)?;
    Some((usize::try_from(number).ok()?, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_read_as_they_were_written() {
        for (indexes, bytes) in [
            (vec![0], &[0][..]),
            (vec![1], &[2, 2]),
            (vec![1, 0], &[4, 2, 0]),
            (vec![100, 2], &[4, 200, 1, 4]),
        ] {
            let indexes = Indexes(indexes);
            assert_eq!(indexes.to_bytes(), bytes);
            let data = [bytes, &[9]].concat();
            assert_eq!(Indexes::read(&data).unwrap(), (indexes, &[9][..]));
        }
        assert_eq!(Indexes::read(&[2, 0, 9]).unwrap(), (Indexes(vec![0]), &[9][..]));
        for wrong in [&[][..], &[1], &[2], &[4, 2], &[255, 255, 255, 255, 15], &[255; 11], &[2, 1]] {
            assert!(Indexes::read(wrong).is_err(), "{wrong:?}");
        }
    }
}
