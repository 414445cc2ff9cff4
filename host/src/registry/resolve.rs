//! Fetches the schemas that a schema refers to.

use std::collections::BTreeSet;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::registry::{Reference, Registry, RegistryError, ResolvedSchema, Schema};

/// How many schemas a schema may refer to, directly and through others.
const MAX_REFERENCES: usize = 1000;

/// How many bytes a schema may have with all of them.
const MAX_BYTES: usize = 32 << 20;

/// How long a chain of references may be.
const MAX_DEPTH: usize = 64;

impl Registry {
    /// Fetches all schemas that a schema refers to.
    pub(super) async fn resolve(&self, schema: Schema) -> Result<ResolvedSchema, RegistryError> {
        let Schema { schema_type, schema: text, references } = schema;
        let mut found = Found { bytes: text.len(), ..Found::default() };
        if references.len() > MAX_REFERENCES {
            return Err(self.refuse_references(&references[0], "is one of too many"));
        }
        self.add_references(references, &mut found).await?;
        let references = found.schemas.into_iter().map(|(reference, text)| (reference.name, text)).collect();
        Ok(ResolvedSchema { schema_type, text, references })
    }

    fn add_references<'a>(
        &'a self,
        references: Vec<Reference>,
        found: &'a mut Found,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        async move {
            for reference in references {
                let Reference { subject, version, .. } = &reference;
                if found.path.iter().any(|above| above.subject == *subject && above.version == *version) {
                    return Err(self.refuse_references(&reference, "refers to itself through others"));
                }
                if !found.known.insert(reference.clone()) {
                    continue;
                }
                if found.path.len() == MAX_DEPTH {
                    return Err(self.refuse_references(&reference, "is behind too many others"));
                }
                if matches!(&**subject, "" | "." | "..") {
                    return Err(self.refuse_references(&reference, "has no such subject"));
                }
                let schema = self.referenced(subject, *version).await?;
                found.bytes += schema.byte_len();
                if found.bytes > MAX_BYTES || found.known.len() + schema.references.len() > MAX_REFERENCES {
                    return Err(
                        self.refuse_references(&reference, "is one of too many, or of too many bytes")
                    );
                }
                found.path.push(reference.clone());
                self.add_references(schema.references, found).await?;
                found.path.pop();
                found.schemas.push((reference, schema.schema));
            }
            Ok(())
        }
        .boxed()
    }
}

/// The schemas that were found, and the references that lead to the present one.
#[derive(Default)]
struct Found {
    schemas: Vec<(Reference, String)>,
    known: BTreeSet<Reference>,
    path: Vec<Reference>,
    bytes: usize,
}
