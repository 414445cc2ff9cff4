//! How records name their schema.

use std::fmt;

use uuid::Uuid;

/// The byte before the number of a schema.
const MAGIC_NUMBER: u8 = 0;

/// The byte before the GUID of a schema.
const MAGIC_GUID: u8 = 1;

/// How a record names its schema: by the number that a registry gave it, or by an identity that all registries give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum WireId {
    Number(u32),
    Guid(Uuid),
}

impl WireId {
    /// Reads the id in a header `__key_schema_id` or `__value_schema_id`. Message indexes of Protobuf may follow it.
    pub(crate) fn of_header(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [MAGIC_GUID, rest @ ..] => Some(Self::Guid(Uuid::from_bytes(*rest.first_chunk()?))),
            _ => Self::of_prefix(bytes),
        }
    }

    /// Reads the id in front of a key or a value.
    pub(crate) fn of_prefix(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [MAGIC_NUMBER, rest @ ..] => Some(Self::Number(u32::from_be_bytes(*rest.first_chunk()?))),
            _ => None,
        }
    }

    /// Whether no registry gives such ids, or only newer ones do.
    pub(crate) fn is_unusual(self) -> bool {
        match self {
            // Registries count with signed numbers.
            Self::Number(number) => i32::try_from(number).is_err(),
            Self::Guid(_) => true,
        }
    }
}

impl fmt::Display for WireId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Guid(guid) => guid.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_number_or_a_guid() {
        assert_eq!(WireId::of_prefix(&[0, 0, 0, 1, 2, 9, 9]), Some(WireId::Number(258)));
        let guid = [&[1][..], &[7; 16]].concat();
        assert_eq!(WireId::of_header(&guid), Some(WireId::Guid(Uuid::from_bytes([7; 16]))));
        assert_eq!(WireId::of_header(&[0, 0, 0, 1, 2]), Some(WireId::Number(258)));
        assert_eq!(WireId::of_prefix(&guid), None, "data may begin with 1");
        for bytes in [&[][..], &[0], &[0, 1, 2, 3], &[1, 2, 3], &[2, 0, 0, 0, 1], b"{}"] {
            assert_eq!(WireId::of_header(bytes), None, "{bytes:?}");
        }
        assert!(WireId::Number(u32::MAX).is_unusual() && !WireId::Number(1).is_unusual());
    }
}
