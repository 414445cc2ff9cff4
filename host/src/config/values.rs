//! The forms of values in the configuration file: how they are read and written, and their schemas. Each is named in
//! `#[serde(with = "…")]`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn default_true() -> bool {
    true
}

/// A number of bytes above 0, with its unit.
pub(super) struct Size;

impl Size {
    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: From<usize>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        let size: ByteSize =
            text.parse().map_err(|_| D::Error::custom("it is not a size: write for example \"32MiB\""))?;
        if size.as_u64() == 0 {
            return Err(D::Error::custom("it must be greater than 0: write for example \"32MiB\""));
        }
        Ok(usize::try_from(size.as_u64()).unwrap_or(usize::MAX).into())
    }

    pub(super) fn serialize<S: Serializer>(
        size: &(impl Into<Option<usize>> + Copy),
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")];
        let text = |size: usize| {
            let unit = units.into_iter().find(|(bytes, _)| size.is_multiple_of(*bytes));
            unit.map(|(bytes, name)| format!("{}{name}", size / bytes))
        };
        (*size).into().and_then(text).serialize(serializer)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["32MiB", "2GiB"] })
    }
}

/// A number above 0; also a string, as arguments have it.
pub(super) struct Count;

impl Count {
    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: From<u64>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let number = match toml::Value::deserialize(deserializer)? {
            toml::Value::Integer(number) => u64::try_from(number).ok(),
            toml::Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let positive = number.filter(|&number| number > 0);
        positive
            .map(T::from)
            .ok_or_else(|| D::Error::custom("it must be a number greater than 0: write for example 1000000"))
    }

    pub(super) fn serialize<S: Serializer>(
        count: &(impl Serialize + Copy),
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        count.serialize(serializer)
    }
}

impl JsonSchema for Count {
    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1 })
    }
}

/// A duration with its unit.
pub(super) struct HumanDuration;

impl HumanDuration {
    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: From<Duration>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The error of `humantime` quotes the value, which may be a secret.
        let duration = humantime::parse_duration(&text);
        duration
            .map(T::from)
            .map_err(|_| D::Error::custom("it is not a duration: write for example \"500ms\" or \"2s\""))
    }

    pub(super) fn serialize<S: Serializer>(
        duration: &(impl Into<Option<Duration>> + Copy),
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text =
            (*duration).into().map(|duration: Duration| humantime::format_duration(duration).to_string());
        text.serialize(serializer)
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["500ms", "10s", "1h"] })
    }
}

/// A duration above 0 with its unit.
pub(super) struct PositiveDuration;

impl PositiveDuration {
    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: From<Duration>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        match HumanDuration::deserialize(deserializer)? {
            Duration::ZERO => Err(D::Error::custom("it must be greater than 0: write for example \"24h\"")),
            duration => Ok(duration.into()),
        }
    }

    pub(super) fn serialize<S: Serializer>(
        duration: &(impl Into<Option<Duration>> + Copy),
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        HumanDuration::serialize(duration, serializer)
    }
}

impl JsonSchema for PositiveDuration {
    fn schema_name() -> Cow<'static, str> {
        HumanDuration::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        HumanDuration::json_schema(generator)
    }
}

/// Properties by name. Errors do not quote the values, because some are secrets.
pub(super) struct Properties;

impl Properties {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, String>, D::Error> {
        let toml::Value::Table(table) = toml::Value::deserialize(deserializer)? else {
            return Err(D::Error::custom(
                "properties must be a table: write { \"client.id\" = \"billing\" }",
            ));
        };
        let property = |(name, value)| match value {
            toml::Value::String(text) => Ok((name, text)),
            toml::Value::Integer(number) => Ok((name, number.to_string())),
            toml::Value::Boolean(value) => Ok((name, value.to_string())),
            _ => Err(D::Error::custom(format!(
                "properties.{name}: write a string, and quote a name that has dots"
            ))),
        };
        table.into_iter().map(property).collect()
    }

    pub(super) fn serialize<S: Serializer>(
        properties: &BTreeMap<String, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        properties.serialize(serializer)
    }
}

impl JsonSchema for Properties {
    fn schema_name() -> Cow<'static, str> {
        "Properties".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": { "type": ["string", "integer", "boolean"] },
        })
    }
}

/// A table that is kept as JSON.
pub(super) struct JsonObject;

impl JsonObject {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<String>, D::Error> {
        let toml::Value::Table(table) = toml::Value::deserialize(deserializer)? else {
            return Err(D::Error::custom("a codec's configuration must be a table"));
        };
        table.values().try_for_each(check_json)?;
        // OK because JSON has all of these values.
        Ok(Some(serde_json::to_string(&table).expect("serializes")))
    }

    pub(super) fn serialize<S: Serializer>(json: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
        let value = json.as_deref().map(serde_json::from_str::<serde_json::Value>).transpose();
        value.map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl JsonSchema for JsonObject {
    fn schema_name() -> Cow<'static, str> {
        "CodecConfiguration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}

/// Fails if a value contains one that JSON does not have.
fn check_json<E: serde::de::Error>(value: &toml::Value) -> Result<(), E> {
    match value {
        toml::Value::Datetime(_) => Err(E::custom(
            "a component receives its configuration as JSON, which has no dates: write a string",
        )),
        toml::Value::Float(number) if !number.is_finite() => Err(E::custom(format!(
            "a component receives its configuration as JSON, which has no {number}: write a finite number or a \
             string"
        ))),
        toml::Value::Array(values) => values.iter().try_for_each(check_json),
        toml::Value::Table(table) => table.values().try_for_each(check_json),
        _ => Ok(()),
    }
}
