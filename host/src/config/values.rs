//! Values of the configuration file.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

pub(super) fn default_true() -> bool {
    true
}

pub(super) fn deserialize_size<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<usize>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let size: ByteSize = text
        .parse()
        .map_err(|_| serde::de::Error::custom("it is not a size: write for example \"32MiB\""))?;
    if size.as_u64() == 0 {
        return Err(serde::de::Error::custom("it must be greater than 0: write for example \"32MiB\""));
    }
    Ok(Some(usize::try_from(size.as_u64()).unwrap_or(usize::MAX)))
}

/// Deserializes a number that must not be 0, also from a string, as arguments have it.
pub(super) fn deserialize_count<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    let number = match toml::Value::deserialize(deserializer)? {
        toml::Value::Integer(number) => u64::try_from(number).ok(),
        toml::Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let positive = number.filter(|&number| number > 0);
    positive.map(Some).ok_or_else(|| {
        serde::de::Error::custom("it must be a number greater than 0: write for example 1000000")
    })
}

/// Deserializes properties by name. Errors do not quote the values, because some are secrets.
pub(super) fn deserialize_properties<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let invalid = |reason: &str| serde::de::Error::custom(reason);
    let toml::Value::Table(table) = toml::Value::deserialize(deserializer)? else {
        return Err(invalid("properties must be a table: write { \"client.id\" = \"billing\" }"));
    };
    let property = |(name, value)| match value {
        toml::Value::String(text) => Ok((name, text)),
        toml::Value::Integer(number) => Ok((name, number.to_string())),
        toml::Value::Boolean(value) => Ok((name, value.to_string())),
        _ => Err(invalid(&format!("properties.{name}: write a string, and quote a name that has dots"))),
    };
    table.into_iter().map(property).collect()
}

pub(super) fn deserialize_duration<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    // The error of `humantime` quotes the value, which may be a secret.
    humantime::parse_duration(&text)
        .map(Some)
        .map_err(|_| serde::de::Error::custom("it is not a duration: write for example \"500ms\" or \"2s\""))
}

/// Deserializes a duration that must not be 0.
pub(super) fn deserialize_positive_duration<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    match deserialize_duration(deserializer)? {
        Some(Duration::ZERO) => {
            Err(serde::de::Error::custom("it must be greater than 0: write for example \"24h\""))
        }
        duration => Ok(duration),
    }
}

/// Deserializes a table, and converts it to JSON.
pub(super) fn deserialize_json<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let toml::Value::Table(table) = toml::Value::deserialize(deserializer)? else {
        return Err(serde::de::Error::custom("a codec's configuration must be a table"));
    };
    table.values().try_for_each(check_json)?;
    // OK because JSON has all of these values.
    Ok(Some(serde_json::to_string(&table).expect("serializes")))
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
