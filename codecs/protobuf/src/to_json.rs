//! Messages as JSON, in Protobuf's canonical form, with what the schema does not know.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use buffa_descriptor::{
    DescriptorPool, DynamicMessage, FieldDescriptor, FieldKind, MapKey, MessageDescriptor, ReflectMessage,
    ScalarType, SingularKind, Value,
};
use serde::ser::{Error, SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};

/// The name of the member with the fields that the schema does not have. A schema in which a field has it is refused.
pub(crate) const UNKNOWN: &str = "@unknown";

/// The package of the types whose JSON Protobuf defines.
pub(crate) const WELL_KNOWN: &str = "google.protobuf.";

/// Whether the JSON of a message type is not that of its fields.
pub(crate) fn is_well_known(descriptor: &MessageDescriptor) -> bool {
    const NAMES: [&str; 8] =
        ["Any", "Duration", "Empty", "FieldMask", "ListValue", "Struct", "Timestamp", "Value"];
    let name = descriptor.full_name().strip_prefix(WELL_KNOWN);
    name.is_some_and(|name| NAMES.contains(&name)) || find_wrapped(descriptor).is_some()
}

/// Returns the field whose JSON a message has instead of its own.
fn find_wrapped(descriptor: &MessageDescriptor) -> Option<&FieldDescriptor> {
    const TYPES: [&str; 9] =
        ["Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64"];
    let kind = descriptor.full_name().strip_prefix(WELL_KNOWN)?.strip_suffix("Value")?;
    let field = descriptor.field(1).filter(|_| TYPES.contains(&kind))?;
    matches!(field.kind(), FieldKind::Singular(SingularKind::Scalar(_))).then_some(field)
}

/// How integers of 64 bits are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Integers {
    #[default]
    String,
    Number,
}

/// A message.
pub(crate) struct MessageJson<'a> {
    pub(crate) message: &'a DynamicMessage,
    pub(crate) integers: Integers,
}

impl Serialize for MessageJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.message;
        let descriptor = message.message_descriptor();
        if let Some(field) = find_wrapped(descriptor) {
            let value = message.get(field).to_owned();
            return self.value(field.kind(), &value).serialize(serializer);
        }
        if is_well_known(descriptor) {
            return message.serialize(serializer);
        }
        let mut map = serializer.serialize_map(None)?;
        let extensions = message.pool().extensions_of(message.message_index());
        let fields = descriptor.fields().iter().map(|field| (field.json_name(), field));
        for (name, field) in
            fields.chain(extensions.map(|extension| (extension.json_key(), extension.field())))
        {
            if let Some(value) = self.find_present(field) {
                map.serialize_entry(name, &self.value(field.kind(), value))?;
            }
        }
        let unknown = message.unknown_fields();
        if !unknown.is_empty() {
            let mut bytes = Vec::with_capacity(unknown.encoded_len());
            unknown.write_to(&mut bytes);
            map.serialize_entry(UNKNOWN, &STANDARD.encode(bytes))?;
        }
        map.end()
    }
}

impl<'a> MessageJson<'a> {
    fn find_present(&self, field: &FieldDescriptor) -> Option<&'a Value> {
        self.message.has(field).then(|| self.message.field_by_number(field.number())).flatten()
    }

    fn value<'b>(&self, kind: FieldKind, value: &'b Value) -> ValueJson<'b>
    where
        'a: 'b,
    {
        ValueJson { pool: self.message.pool(), integers: self.integers, kind, value }
    }
}

/// The value of a field, or a part of it.
struct ValueJson<'a> {
    pool: &'a DescriptorPool,
    integers: Integers,
    kind: FieldKind,
    value: &'a Value,
}

impl ValueJson<'_> {
    fn part<'b>(&'b self, kind: SingularKind, value: &'b Value) -> ValueJson<'b> {
        ValueJson { kind: FieldKind::Singular(kind), value, ..*self }
    }
}

impl Serialize for ValueJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.kind, self.value) {
            (FieldKind::List(kind), Value::List(items)) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&self.part(kind, item))?;
                }
                list.end()
            }
            (FieldKind::Map { value: kind, .. }, Value::Map(entries)) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries.iter() {
                    map.serialize_entry(&map_key_text(key), &self.part(kind, value))?;
                }
                map.end()
            }
            (FieldKind::Singular(SingularKind::Scalar(kind)), value) => {
                serialize_scalar(kind, value, self.integers, serializer)
            }
            (FieldKind::Singular(SingularKind::Enum(index)), Value::EnumNumber(number)) => {
                let descriptor = self.pool.enumeration(index);
                match descriptor.value(*number) {
                    _ if descriptor.full_name() == "google.protobuf.NullValue" => serializer.serialize_none(),
                    Some(value) => serializer.serialize_str(value.name()),
                    None => serializer.serialize_i32(*number),
                }
            }
            (FieldKind::Singular(SingularKind::Message(_)), Value::Message(message)) => {
                MessageJson { message, integers: self.integers }.serialize(serializer)
            }
            _ => Err(S::Error::custom("a field has a value of another type")),
        }
    }
}

/// Returns the JSON name of an entry of a map.
pub(crate) fn map_key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn serialize_scalar<S: Serializer>(
    kind: ScalarType,
    value: &Value,
    integers: Integers,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match (value, integers) {
        (Value::Bool(value), _) => serializer.serialize_bool(*value),
        (Value::I32(value), _) => serializer.serialize_i32(*value),
        (Value::U32(value), _) => serializer.serialize_u32(*value),
        (Value::I64(value), Integers::String) => serializer.collect_str(value),
        (Value::I64(value), Integers::Number) => serializer.serialize_i64(*value),
        (Value::U64(value), Integers::String) => serializer.collect_str(value),
        (Value::U64(value), Integers::Number) => serializer.serialize_u64(*value),
        (Value::F32(value), _) if value.is_finite() => serializer.serialize_f32(*value),
        (Value::F64(value), _) if value.is_finite() => serializer.serialize_f64(*value),
        (Value::F32(value), _) => serializer.serialize_str(name_of_not_finite(f64::from(*value))),
        (Value::F64(value), _) => serializer.serialize_str(name_of_not_finite(*value)),
        (Value::String(value), _) => serializer.serialize_str(value),
        (Value::Bytes(value), _) => serializer.serialize_str(&STANDARD.encode(value)),
        _ => Err(S::Error::custom(format!("a field of type {kind:?} has a value of another type"))),
    }
}

fn name_of_not_finite(number: f64) -> &'static str {
    match number {
        number if number.is_nan() => "NaN",
        number if number > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}
