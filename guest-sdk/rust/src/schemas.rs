//! Schemas from the schema registry that the host's configuration names for the codec.
//!
//! The host asks the registry between two calls, never during one. A function that returns
//! [`SchemaError::Pending`] will answer in the next call, which has the same records: return any error for this
//! record, and go on with the next one. The functions answer while the host decodes or encodes, not in
//! [`Plugin::configure`](crate::Plugin::configure), and not outside of a component.

use crate::CodecError;
#[cfg(target_family = "wasm")]
use crate::bindings::schemas::ktables::codec::schemas;

pub use crate::bindings::schemas::ktables::codec::schemas::{
    NewSchema, Reference, ResolvedReference, Schema, SchemaError, SchemaFormat, SubjectVersion,
};

/// Returns the schema with this id. It never changes, so an instance should ask for it once.
///
/// # Errors
///
/// [`SchemaError::Unknown`] if the registry has no such schema.
pub fn by_id(id: u32) -> Result<Schema, SchemaError> {
    #[cfg(target_family = "wasm")]
    return schemas::by_id(id);
    #[cfg(not(target_family = "wasm"))]
    outside(id)
}

/// Returns the schema with this GUID: 32 hexadecimal digits, with or without hyphens. A GUID always stands for the same
/// schema.
///
/// # Errors
///
/// [`SchemaError::Unknown`] if the registry has no such schema.
pub fn by_guid(guid: &str) -> Result<Schema, SchemaError> {
    #[cfg(target_family = "wasm")]
    return schemas::by_guid(guid);
    #[cfg(not(target_family = "wasm"))]
    outside(guid)
}

/// Returns the newest version of a subject.
///
/// # Errors
///
/// [`SchemaError::Unknown`] if the registry has no such subject.
pub fn latest(subject: &str) -> Result<SubjectVersion, SchemaError> {
    #[cfg(target_family = "wasm")]
    return schemas::latest(subject);
    #[cfg(not(target_family = "wasm"))]
    outside(subject)
}

/// Returns a version of a subject.
///
/// # Errors
///
/// [`SchemaError::Unknown`] if the registry has no such version.
pub fn by_version(subject: &str, version: u32) -> Result<SubjectVersion, SchemaError> {
    #[cfg(target_family = "wasm")]
    return schemas::by_version(subject, version);
    #[cfg(not(target_family = "wasm"))]
    outside((subject, version))
}

/// Adds a schema to a subject, unless the subject has it already, and returns its id.
///
/// # Errors
///
/// [`SchemaError::Refused`] if the configuration does not allow it, or the schema is not compatible.
pub fn register(subject: &str, schema: &NewSchema) -> Result<u32, SchemaError> {
    #[cfg(target_family = "wasm")]
    return schemas::register(subject, schema);
    #[cfg(not(target_family = "wasm"))]
    outside((subject, schema))
}

#[cfg(not(target_family = "wasm"))]
fn outside<T>(_: impl Sized) -> Result<T, SchemaError> {
    Err(SchemaError::Refused("there is no schema registry outside of a component".to_owned()))
}

/// Returns the error of a record whose schema is not there. The host counts a schema that the registry does not have as
/// `unknown schema`.
#[must_use]
pub fn codec_error(error: SchemaError) -> CodecError {
    CodecError::Other(match error {
        SchemaError::Pending => "the schema is not here yet".to_owned(),
        SchemaError::Unknown(reason) | SchemaError::Refused(reason) => reason,
    })
}
