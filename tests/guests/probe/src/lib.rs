//! A guest that uses the SDK. The configuration is `{"mode": …}`: `copy` returns values unchanged, `json`
//! checks that they are JSON, `headers` returns the names of the headers, and `log` logs each value. It
//! refuses any other mode.

use std::borrow::Cow;

use ktables_guest::{CodecError, Context, Encoded, Header, Info, Level, Plugin, ValueCodec};
use serde_json::Value;
use serde_json::value::RawValue;

/// The codec.
#[derive(Debug)]
pub enum Probe {
    /// Returns values unchanged.
    Copy,
    /// Checks that values are JSON.
    Json,
    /// Returns the names of the headers instead of the value.
    Headers,
    /// Logs each value, and returns it unchanged.
    Log,
}

ktables_guest::export!(Probe: Plugin, ValueCodec);

impl Plugin for Probe {
    fn describe() -> Info {
        Info { name: "probe".to_owned(), version: "1".to_owned(), wants_headers: true }
    }

    fn configure(context: &Context) -> Result<Self, String> {
        let config: Value = serde_json::from_str(&context.config).map_err(|error| error.to_string())?;
        match config["mode"].as_str() {
            Some("copy") => Ok(Self::Copy),
            Some("json") => Ok(Self::Json),
            Some("headers") => Ok(Self::Headers),
            Some("log") => Ok(Self::Log),
            mode => Err(format!("topic {}: mode {mode:?} is not copy, json, headers or log", context.topic)),
        }
    }
}

impl ValueCodec for Probe {
    fn decode<'a>(&self, raw: &'a [u8], headers: &[Header]) -> Result<Cow<'a, str>, CodecError> {
        let text = std::str::from_utf8(raw).map_err(|error| CodecError::Malformed(error.to_string()))?;
        match self {
            Self::Copy => {}
            Self::Json => {
                serde_json::from_str::<&RawValue>(text)
                    .map_err(|error| CodecError::Malformed(error.to_string()))?;
            }
            Self::Headers => {
                let names: Vec<Value> = headers.iter().map(|header| header.name.clone().into()).collect();
                return Ok(Value::Array(names).to_string().into());
            }
            Self::Log => ktables_guest::log(Level::Warn, text),
        }
        Ok(text.into())
    }

    fn encode(&self, value: &str) -> Result<Encoded, CodecError> {
        Ok(value.as_bytes().to_vec().into())
    }
}
