//! The fields of messages that the schema does not have. In JSON, they are base64 in a member of their message, so that a
//! value that is read and written again still has them.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use buffa_descriptor::{
    DescriptorPool, DynamicMessage, FieldKind, MapValue, MessageIndex, ReflectMessage, ScalarType,
    SingularKind, Value,
};
use serde_json::{Map, Value as Json};

use crate::to_json::{UNKNOWN, is_well_known, map_key_text};

/// The unknown fields of a message, and of the messages in it.
#[derive(Debug, Default)]
pub(crate) struct UnknownFields {
    own: Vec<u8>,
    /// Those of the messages in its fields, by the number of the field.
    fields: BTreeMap<u32, Parts>,
}

/// The unknown fields of the messages in a field.
#[derive(Debug)]
enum Parts {
    One(UnknownFields),
    List(BTreeMap<usize, UnknownFields>),
    Map(HashMap<String, UnknownFields>),
}

impl UnknownFields {
    /// Takes the unknown fields out of the JSON of a message.
    pub(crate) fn take(
        json: &mut Json,
        pool: &DescriptorPool,
        message: MessageIndex,
    ) -> Result<Self, String> {
        let descriptor = pool.message(message);
        let mut unknown = Self::default();
        let Json::Object(members) = json else { return Ok(unknown) };
        if is_well_known(descriptor) {
            return Ok(unknown);
        }
        if let Some(text) = members.remove(UNKNOWN) {
            let bytes = text.as_str().and_then(|text| STANDARD.decode(text).ok());
            unknown.own = bytes.ok_or_else(|| format!("{UNKNOWN} is not base64"))?;
        }
        for (name, json) in members {
            let extension = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
            let field = match extension {
                Some(name) => pool.extension_by_name(name).map(|extension| extension.field()),
                None => descriptor.field_by_name(name),
            };
            // A member that is no field is an error later.
            let Some(field) = field else { continue };
            let parts = match (field.kind(), json) {
                (FieldKind::Singular(SingularKind::Message(inner)), json) => {
                    Some(Self::take(json, pool, inner)?).filter(|part| !part.is_empty()).map(Parts::One)
                }
                (FieldKind::List(SingularKind::Message(inner)), Json::Array(items)) => {
                    Self::take_from_list(items, pool, inner)?
                }
                (FieldKind::Map { key, value: SingularKind::Message(inner) }, Json::Object(entries)) => {
                    Self::take_from_map(entries, pool, key, inner)?
                }
                _ => None,
            };
            if let Some(parts) = parts {
                unknown.fields.insert(field.number(), parts);
            }
        }
        Ok(unknown)
    }

    fn take_from_list(
        items: &mut [Json],
        pool: &DescriptorPool,
        message: MessageIndex,
    ) -> Result<Option<Parts>, String> {
        let mut parts = BTreeMap::new();
        for (index, item) in items.iter_mut().enumerate() {
            let part = Self::take(item, pool, message)?;
            if !part.is_empty() {
                parts.insert(index, part);
            }
        }
        Ok((!parts.is_empty()).then_some(Parts::List(parts)))
    }

    fn take_from_map(
        entries: &mut Map<String, Json>,
        pool: &DescriptorPool,
        key: ScalarType,
        message: MessageIndex,
    ) -> Result<Option<Parts>, String> {
        let mut parts = HashMap::new();
        for (name, value) in entries {
            let part = Self::take(value, pool, message)?;
            if !part.is_empty() {
                // A number may be written in several ways.
                let number = name.parse::<i128>().ok().filter(|_| key != ScalarType::String);
                parts.insert(number.map_or_else(|| name.clone(), |number| number.to_string()), part);
            }
        }
        Ok((!parts.is_empty()).then_some(Parts::Map(parts)))
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.fields.is_empty()
    }

    /// Gives the unknown fields back to the messages that have them.
    pub(crate) fn restore(self, message: &mut DynamicMessage) -> Result<(), String> {
        if !self.own.is_empty() {
            add(message, &self.own)?;
        }
        for (number, parts) in self.fields {
            match (message.field_by_number_mut(number), parts) {
                (Some(Value::Message(inner)), Parts::One(part)) => part.restore(inner)?,
                (Some(Value::List(items)), Parts::List(parts)) => {
                    for (index, part) in parts {
                        restore_in(items.get_mut(index), part)?;
                    }
                }
                (Some(Value::Map(map)), Parts::Map(mut parts)) => {
                    let mut entries = std::mem::replace(map, MapValue::new()).into_entries();
                    for (key, value) in &mut entries {
                        if let Some(part) = parts.remove(&map_key_text(key)) {
                            restore_in(Some(value), part)?;
                        }
                    }
                    *map = MapValue::from_entries(entries);
                }
                _ => return Err(missing()),
            }
        }
        Ok(())
    }
}

fn restore_in(value: Option<&mut Value>, part: UnknownFields) -> Result<(), String> {
    match value {
        Some(Value::Message(message)) => part.restore(message),
        _ => Err(missing()),
    }
}

fn missing() -> String {
    format!("{UNKNOWN} belongs to a message that the JSON does not have: remove it")
}

/// Adds fields to a message that its schema does not have.
fn add(message: &mut DynamicMessage, bytes: &[u8]) -> Result<(), String> {
    let invalid = |error: buffa::DecodeError| format!("{UNKNOWN}: {error}");
    let own =
        DynamicMessage::decode(message.pool().clone(), message.message_index(), bytes).map_err(invalid)?;
    let mut known = None;
    own.for_each_set(&mut |field, _| known = Some(field.name().to_owned()));
    if let Some(name) = known {
        return Err(format!("{UNKNOWN} has the field {name}, which the schema has: write it by its name"));
    }
    message.merge(bytes).map_err(invalid)
}
