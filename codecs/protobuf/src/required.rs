//! Fields that a message must have: `required` in proto2.

use buffa::editions::FieldPresence;
use buffa_descriptor::{DescriptorPool, DynamicMessage, ReflectMessage, Value};

use crate::to_json::WELL_KNOWN;

/// Whether a schema has such fields.
pub(crate) fn has_required_fields(pool: &DescriptorPool) -> bool {
    let messages = pool.messages().iter().filter(|message| !message.full_name().starts_with(WELL_KNOWN));
    let mut fields = messages.flat_map(|message| message.fields());
    fields.any(|field| field.presence() == FieldPresence::LegacyRequired)
}

/// Fails if the message, or a message in it, lacks a required field.
pub(crate) fn check_required_fields(message: &DynamicMessage) -> Result<(), String> {
    let descriptor = message.message_descriptor();
    let extensions = message.pool().extensions_of(message.message_index());
    for field in descriptor.fields().iter().chain(extensions.map(|extension| extension.field())) {
        let value = message.field_by_number(field.number()).filter(|_| message.has(field));
        match value {
            None if field.presence() == FieldPresence::LegacyRequired => {
                return Err(format!(
                    "the required field {} of {} is missing",
                    field.name(),
                    descriptor.full_name()
                ));
            }
            None => {}
            Some(value) => check_value(value)?,
        }
    }
    Ok(())
}

fn check_value(value: &Value) -> Result<(), String> {
    match value {
        Value::Message(message) => check_required_fields(message),
        Value::List(items) => items.iter().try_for_each(check_value),
        Value::Map(entries) => entries.iter().try_for_each(|(_, value)| check_value(value)),
        _ => Ok(()),
    }
}
