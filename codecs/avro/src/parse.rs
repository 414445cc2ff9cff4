//! Parses schemas, which come from a registry and may be hostile.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, UuidSchema};
use schema_framing::shorten;
use serde_json::Value;

use crate::names::allow_names_of_java;

/// Where the default of a field is moved before `apache-avro` parses a schema: it would check the default, too strictly, and
/// in a time that grows exponentially with the depth.
pub(crate) const DEFAULT: &str = "ktables.default";

/// How many schemas a schema may refer to. The parser recurses through them.
const MAX_REFERENCES: usize = 200;

/// The largest fixed type, in bytes.
const MAX_FIXED_BYTES: u64 = 1 << 30;

/// A parsed schema with the types that it refers to.
#[derive(Debug)]
pub(crate) struct ParsedSchema {
    pub(crate) schema: Schema,
    /// The named types, by name and by alias.
    types: HashMap<Name, Schema>,
}

impl ParsedSchema {
    /// Parses a schema with those that it refers to.
    pub(crate) fn parse<'a>(text: &str, references: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        allow_names_of_java();
        let mut others = references.map(prepare).collect::<Result<Vec<_>, _>>()?;
        // The same one may have two names.
        others.sort_unstable();
        others.dedup();
        if others.len() > MAX_REFERENCES {
            return Err(format!("it refers to more than {MAX_REFERENCES} others"));
        }
        let (schema, others) = Schema::parse_str_with_list(&prepare(text)?, others)
            .map_err(|error| shorten(&error.to_string()).to_owned())?;
        let mut types = HashMap::new();
        for schema in others.iter().chain([&schema]) {
            collect(schema, &mut types)?;
        }
        Ok(Self { schema, types })
    }

    /// Returns what a name stands for.
    pub(crate) fn resolve<'a>(&'a self, schema: &'a Schema) -> &'a Schema {
        match schema {
            Schema::Ref { name } => self.types.get(name).unwrap_or(schema),
            schema => schema,
        }
    }
}

/// Checks what the parser does not, and hides the defaults of fields from it.
fn prepare(text: &str) -> Result<String, String> {
    let mut schema: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    if let Value::Object(object) = &schema
        && object.get("type").is_some_and(Value::is_object)
    {
        return Err("its type is an object: write that object alone".to_owned());
    }
    prepare_value(&mut schema)?;
    Ok(schema.to_string())
}

fn prepare_value(schema: &mut Value) -> Result<(), String> {
    match schema {
        Value::Array(items) => items.iter_mut().try_for_each(prepare_value),
        Value::Object(object) => {
            if object.get("size").and_then(Value::as_u64).is_some_and(|size| size > MAX_FIXED_BYTES) {
                return Err(format!("a fixed type has more than {MAX_FIXED_BYTES} bytes"));
            }
            for field in object.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(field) = field.as_object_mut()
                    && let Some(default) = field.remove("default")
                {
                    field.insert(DEFAULT.to_owned(), default);
                }
            }
            // Not the defaults, which are no schemas.
            object
                .iter_mut()
                .filter(|(name, _)| *name != DEFAULT)
                .try_for_each(|(_, value)| prepare_value(value))
        }
        _ => Ok(()),
    }
}

/// Collects the named types of a schema.
fn collect(schema: &Schema, types: &mut HashMap<Name, Schema>) -> Result<(), String> {
    if let Some(name) = type_name(schema) {
        if types.get(name).is_some_and(|known| known != schema) {
            return Err(format!("the type {} is defined twice", name.fullname(None)));
        }
        types.insert(name.clone(), schema.clone());
        for alias in schema.aliases().into_iter().flatten() {
            if let Ok(alias) = Name::new(alias.fullname(name.namespace())) {
                types.entry(alias).or_insert_with(|| schema.clone());
            }
        }
    }
    match schema {
        Schema::Record(record) => record.fields.iter().try_for_each(|field| collect(&field.schema, types)),
        Schema::Array(array) => collect(&array.items, types),
        Schema::Map(map) => collect(&map.types, types),
        Schema::Union(union) => union.variants().iter().try_for_each(|variant| collect(variant, types)),
        _ => Ok(()),
    }
}

/// Returns the name of a named type.
pub(crate) fn type_name(schema: &Schema) -> Option<&Name> {
    match schema {
        Schema::Record(record) => Some(&record.name),
        Schema::Enum(schema) => Some(&schema.name),
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
            Some(&fixed.name)
        }
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Fixed(fixed) => Some(&fixed.name),
            InnerDecimalSchema::Bytes => None,
        },
        _ => None,
    }
}
