//! How records name their schema.

use std::fmt;

use ktables_guest::schemas::{self, Schema, SchemaError};
use ktables_guest::{CodecError, Encoded, Header, Role};

use crate::Framing;

/// The byte before the number of a schema.
const NUMBER: u8 = 0;

/// The byte before the GUID of a schema.
const GUID: u8 = 1;

/// How a record names its schema: by the number that its registry has given it, or by the GUID that it has in all
/// registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SchemaId {
    /// The number.
    Number(u32),
    /// The GUID.
    Guid([u8; 16]),
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(id) => id.fmt(f),
            Self::Guid(guid) => guid.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

impl SchemaId {
    /// Reads the id in front of data. Returns the data, too.
    fn split_prefix(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&magic, rest) = bytes.split_first()?;
        let (id, rest) = rest.split_first_chunk()?;
        (magic == NUMBER).then(|| (Self::Number(u32::from_be_bytes(*id)), rest))
    }

    /// Reads the id in a header. Returns what follows, too.
    fn split_header(bytes: &[u8]) -> Option<(Self, &[u8])> {
        match bytes.split_first()? {
            (&GUID, rest) => rest.split_first_chunk().map(|(id, rest)| (Self::Guid(*id), rest)),
            _ => Self::split_prefix(bytes),
        }
    }

    /// Asks the host for the schema.
    ///
    /// # Errors
    ///
    /// If the host does not have it yet, or the registry does not have it.
    pub fn schema(self) -> Result<Schema, SchemaError> {
        match self {
            Self::Number(id) => schemas::by_id(id),
            Self::Guid(_) => schemas::by_guid(&self.to_string()),
        }
    }
}

/// The bytes of a key or of a value, with the id of its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a, 'h> {
    /// The id of the schema.
    pub id: SchemaId,
    /// The bytes after the id in the header; `None` if the id is in front of the data.
    header_rest: Option<&'h [u8]>,
    /// The bytes behind the id, or all bytes if the id is in a header.
    data: &'a [u8],
}

impl<'a, 'h> Frame<'a, 'h> {
    /// Finds the id: in the header for this part of the record, or else in front of the data.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn read(raw: &'a [u8], headers: &'h [Header], role: Role) -> Result<Self, CodecError> {
        let name = header_name(role);
        if let Some(header) = headers.iter().rev().find(|header| header.name == name) {
            let bytes = header.value.as_deref().unwrap_or_default();
            let (id, rest) = SchemaId::split_header(bytes).ok_or_else(|| {
                CodecError::Malformed(format!(
                    "the header {name} has {} bytes; it must have 0 and an id of 4 bytes, or 1 and a GUID of 16",
                    bytes.len()
                ))
            })?;
            return Ok(Self { id, header_rest: Some(rest), data: raw });
        }
        match SchemaId::split_prefix(raw) {
            Some((id, data)) => Ok(Self { id, header_rest: None, data }),
            None => Err(CodecError::Malformed(format!(
                "it does not begin with 0 and the id of a schema in 4 bytes (if no value does, set plain): it has {} bytes{}",
                raw.len(),
                raw.first().map(|first| format!(", the first is {first}")).unwrap_or_default()
            ))),
        }
    }

    /// Returns the data.
    ///
    /// # Errors
    ///
    /// If there is something between the id and the data.
    pub fn data(&self) -> Result<&'a [u8], CodecError> {
        match self.header_rest {
            Some(rest) if !rest.is_empty() => {
                let reason = "the header with the id of its schema has more bytes than the id";
                Err(CodecError::Malformed(reason.to_owned()))
            }
            _ => Ok(self.data),
        }
    }

    /// Reads what is between the id and the data (Protobuf's message indexes) with `read`, which also returns the bytes that it
    /// did not use. Returns it, and the data.
    ///
    /// # Errors
    ///
    /// If `read` fails, or leaves bytes of the header over.
    pub fn data_after<T>(
        &self,
        read: impl Fn(&[u8]) -> Result<(T, &[u8]), CodecError>,
    ) -> Result<(T, &'a [u8]), CodecError> {
        match self.header_rest {
            None => read(self.data),
            Some(rest) => {
                let (found, rest) = read(rest)?;
                Ok((found, Self { header_rest: Some(rest), ..*self }.data()?))
            }
        }
    }
}

/// Writes data with the number of its schema. `between` is written between the two.
#[must_use]
pub fn write_frame(framing: Framing, id: u32, role: Role, between: &[u8], data: &[u8]) -> Encoded {
    let prefix = [&[NUMBER][..], &id.to_be_bytes(), between].concat();
    match framing {
        Framing::Prefix => [prefix.as_slice(), data].concat().into(),
        Framing::Header => Encoded {
            raw: data.to_vec(),
            headers: vec![Header { name: header_name(role).to_owned(), value: Some(prefix) }],
        },
    }
}

fn header_name(role: Role) -> &'static str {
    match role {
        Role::Key => "__key_schema_id",
        Role::Value | Role::Group => "__value_schema_id",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(bytes: &[u8]) -> Result<(u8, &[u8]), CodecError> {
        Ok((bytes[0], &bytes[1..]))
    }

    #[test]
    fn an_id_is_in_front_of_the_data_or_in_a_header() {
        let raw = [0, 0, 0, 1, 2, 9, 9];
        let frame = Frame::read(&raw, &[], Role::Value).unwrap();
        assert_eq!((frame.id, frame.data().unwrap()), (SchemaId::Number(258), &[9, 9][..]));
        let guid = [&[1][..], &[7; 16], &[5]].concat();
        let header = |name: &str, value: &[u8]| Header { name: name.to_owned(), value: Some(value.to_vec()) };
        let headers = [header("__value_schema_id", &guid), header("__key_schema_id", &[0, 0, 0, 0, 3])];
        let frame = Frame::read(&raw, &headers, Role::Value).unwrap();
        assert_eq!(frame.id, SchemaId::Guid([7; 16]));
        assert!(frame.data().is_err());
        assert_eq!(frame.data_after(first).unwrap(), (5, &raw[..]));
        assert_eq!(Frame::read(&raw, &headers, Role::Key).unwrap().id, SchemaId::Number(3));
        for raw in [&[][..], &[0], &[0, 1, 2, 3], &[2, 0, 0, 0, 1], &guid, b"{}"] {
            assert!(Frame::read(raw, &[], Role::Value).is_err(), "{raw:?}");
        }
        assert!(Frame::read(&raw, &[header("__value_schema_id", &[0])], Role::Value).is_err());
        for framing in [Framing::Prefix, Framing::Header] {
            let encoded = write_frame(framing, 258, Role::Value, &[5], &[9, 9]);
            let frame = Frame::read(&encoded.raw, &encoded.headers, Role::Value).unwrap();
            assert_eq!(frame.id, SchemaId::Number(258));
            assert_eq!(frame.data_after(first).unwrap(), (5, &[9, 9][..]));
        }
    }
}
