//! Schemas that an instance has compiled.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ktables_guest::CodecError;
use ktables_guest::schemas::{self, Schema, SchemaFormat};

use crate::SchemaId;

/// How many schemas an instance keeps compiled, and how many bytes their texts may have together: what is compiled uses a
/// multiple of that, and an instance has 64 MiB by default.
const MAX_SCHEMAS: usize = 100;
const MAX_BYTES: usize = 2 << 20;

/// The compiled schemas of an instance. Of one that cannot be compiled, it has the reason. A std lock: an instance has one
/// thread.
pub struct Compiled<T>(Mutex<HashMap<SchemaId, Entry<T>>>);

struct Entry<T> {
    compiled: Result<Arc<T>, CodecError>,
    /// The bytes of its text, and of those of the schemas that it refers to.
    bytes: usize,
}

impl<T> Compiled<T> {
    /// Returns the compiled schema with this id, which must have this format.
    ///
    /// # Errors
    ///
    /// If the host does not have it yet, the registry does not have it, or it cannot be used.
    pub fn get(
        &self,
        id: SchemaId,
        format: SchemaFormat,
        compile: impl FnOnce(&Schema) -> Result<T, String>,
    ) -> Result<Arc<T>, CodecError> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(&id) {
            return entry.compiled.clone();
        }
        let schema = id.schema().map_err(schemas::codec_error)?;
        let compiled = require_format(&schema, format).and_then(|()| compile(&schema));
        let compiled = compiled
            .map(Arc::new)
            .map_err(|reason| CodecError::Invalid(format!("its schema (id {id}) cannot be used: {reason}")));
        let references = schema.references.iter().map(|reference| reference.text.len());
        let bytes = schema.text.len() + references.sum::<usize>();
        let has_room = |entries: &HashMap<_, Entry<T>>| {
            let used: usize = entries.values().map(|entry| entry.bytes).sum();
            entries.len() < MAX_SCHEMAS && used + bytes <= MAX_BYTES
        };
        while !has_room(&entries)
            && let Some(other) = entries.keys().next().copied()
        {
            entries.remove(&other);
        }
        entries.insert(id, Entry { compiled: compiled.clone(), bytes });
        compiled
    }
}

impl<T> Default for Compiled<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> fmt::Debug for Compiled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled").finish_non_exhaustive()
    }
}

fn require_format(schema: &Schema, format: SchemaFormat) -> Result<(), String> {
    let name = |format| match format {
        SchemaFormat::Avro => "Avro",
        SchemaFormat::Protobuf => "Protobuf",
        SchemaFormat::Json => "JSON Schema",
        SchemaFormat::Other => "another format",
    };
    match schema.format == format {
        true => Ok(()),
        false => Err(format!("it is {}, not {}", name(schema.format), name(format))),
    }
}
