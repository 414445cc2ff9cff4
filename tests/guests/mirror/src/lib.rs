//! A guest for benchmarks that returns values unchanged, to measure the cost of calling a component. The
//! configuration is `{"mode": …}`: `copy` checks only that a value is UTF-8, `json` checks that it is JSON.

use std::borrow::Cow;

use ktables_guest::{CodecError, Context, Encoded, Header, Info, Plugin, ValueCodec};
use serde_json::Value;

/// The codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mirror {
    /// Returns values unchanged.
    Copy,
    /// Checks that values are JSON.
    Json,
}

ktables_guest::export!(Mirror: Plugin, ValueCodec);

impl Plugin for Mirror {
    fn describe() -> Info {
        Info { name: "mirror".to_owned(), version: "1".to_owned(), wants_headers: false }
    }

    fn configure(context: &Context) -> Result<Self, String> {
        let config: Value = serde_json::from_str(&context.config).map_err(|error| error.to_string())?;
        match config["mode"].as_str() {
            Some("copy") => Ok(Self::Copy),
            Some("json") => Ok(Self::Json),
            mode => Err(format!("unknown mode {mode:?}, expected copy or json")),
        }
    }
}

impl ValueCodec for Mirror {
    fn decode<'a>(&self, raw: &'a [u8], _: &[Header]) -> Result<Cow<'a, str>, CodecError> {
        let text = std::str::from_utf8(raw).map_err(|error| CodecError::Malformed(error.to_string()))?;
        if *self == Self::Json {
            ktables_guest::check_json(text)?;
        }
        Ok(text.into())
    }

    fn encode(&self, value: &str) -> Result<Encoded, CodecError> {
        Ok(value.as_bytes().to_vec().into())
    }
}
