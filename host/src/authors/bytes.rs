//! The bytes of records, in JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::log::Header;

/// A header of a record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JsonHeader {
    name: String,
    value: Option<Base64>,
}

impl JsonHeader {
    pub(crate) fn to_header(&self) -> Header {
        Header { name: self.name.clone(), value: self.value.as_ref().map(|value| value.0.clone()) }
    }

    pub(crate) fn new(header: &Header) -> Self {
        Self { name: header.name.clone(), value: header.value.clone().map(Base64) }
    }
}

/// Bytes as base64 text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base64(pub(crate) Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let decoded = BASE64.decode(text);
        decoded.map(Self).map_err(|error| serde::de::Error::custom(format_args!("not base64: {error}")))
    }
}
