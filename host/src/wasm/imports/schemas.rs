//! `ktables:codec/schemas`: guests look schemas up in the schema registry of their codec.

use uuid::Uuid;
use wasmtime::component::HasSelf;

use crate::registry::{
    MAX_NEW_SCHEMA_BYTES, MAX_SUBJECT_BYTES, Reference, ResolvedSchema, Schema, SchemaAnswer, SchemaQuery,
    SchemaType,
};
use crate::wasm::bindings::v0_1::ktables::codec::schemas;
use crate::wasm::bindings::v0_1::ktables::codec::schemas::{SchemaError, SchemaFormat};
use crate::wasm::imports::import::Import;
use crate::wasm::state::State;

pub(super) const IMPORT: Import = Import {
    name: "schemas",
    about: "looks schemas up in the schema registry of the configuration",
    add_to_linker: |linker| schemas::add_to_linker::<_, HasSelf<State>>(linker, |state| state),
};

impl State {
    /// Looks up what is known. What is missing is noted, to be obtained after the call.
    fn look_up(&mut self, query: SchemaQuery) -> Result<SchemaAnswer, SchemaError> {
        let Some(source) = &self.schema_source else {
            let reason = "no schema registry is configured for this codec: set schema_registry = \"NAME\" in \
                          [codecs.NAME], or --schema-registry";
            return Err(SchemaError::Refused(reason.to_owned()));
        };
        let Some(missing) = &mut self.missing_schemas else {
            let reason = "schemas can be looked up in decode and encode only";
            return Err(SchemaError::Refused(reason.to_owned()));
        };
        match source.find(&query) {
            Some(SchemaAnswer::Unknown(reason)) => Err(SchemaError::Unknown(reason)),
            Some(SchemaAnswer::Refused(reason)) => Err(SchemaError::Refused(reason)),
            Some(answer) => Ok(answer),
            None => {
                missing.add(query);
                Err(SchemaError::Pending)
            }
        }
    }

    fn look_up_schema(&mut self, query: SchemaQuery) -> Result<schemas::Schema, SchemaError> {
        self.run_import(|state| match state.look_up(query)? {
            SchemaAnswer::Schema(schema) => Ok(to_wit(&schema)),
            _ => Err(unexpected()),
        })
    }

    fn look_up_version(&mut self, query: SchemaQuery) -> Result<schemas::SubjectVersion, SchemaError> {
        self.run_import(|state| match state.look_up(query)? {
            SchemaAnswer::Version { version, id } => Ok(schemas::SubjectVersion { version, id }),
            _ => Err(unexpected()),
        })
    }
}

impl schemas::Host for State {
    fn by_id(&mut self, id: u32) -> Result<schemas::Schema, SchemaError> {
        self.look_up_schema(SchemaQuery::Id(id))
    }

    fn by_guid(&mut self, guid: String) -> Result<schemas::Schema, SchemaError> {
        let guid = Uuid::try_parse(&guid)
            .map_err(|_| SchemaError::Refused("a GUID has 32 hexadecimal digits".to_owned()))?;
        self.look_up_schema(SchemaQuery::Guid(guid))
    }

    fn latest(&mut self, subject: String) -> Result<schemas::SubjectVersion, SchemaError> {
        let subject = check_subject(subject)?;
        self.look_up_version(SchemaQuery::Latest(subject))
    }

    fn by_version(&mut self, subject: String, version: u32) -> Result<schemas::SubjectVersion, SchemaError> {
        let subject = check_subject(subject)?;
        self.look_up_version(SchemaQuery::Version(subject, version))
    }

    fn register(&mut self, subject: String, schema: schemas::NewSchema) -> Result<u32, SchemaError> {
        let schema = from_wit(schema)?;
        if schema.byte_len() > MAX_NEW_SCHEMA_BYTES {
            let reason = format!("a schema to add has at most {MAX_NEW_SCHEMA_BYTES} bytes");
            return Err(SchemaError::Refused(reason));
        }
        let query = SchemaQuery::Register(check_subject(subject)?, schema);
        self.run_import(|state| match state.look_up(query)? {
            SchemaAnswer::Registered(id) => Ok(id),
            _ => Err(unexpected()),
        })
    }
}

/// Not reached: a source answers what it is asked.
fn unexpected() -> SchemaError {
    SchemaError::Refused("an answer of the wrong kind: please report this defect of ktables".to_owned())
}

fn check_subject(subject: String) -> Result<String, SchemaError> {
    match subject.as_str() {
        "" | "." | ".." => Err(SchemaError::Refused("a subject is not empty, `.` or `..`".to_owned())),
        long if long.len() > MAX_SUBJECT_BYTES => {
            Err(SchemaError::Refused(format!("a subject has at most {MAX_SUBJECT_BYTES} bytes")))
        }
        _ => Ok(subject),
    }
}

fn to_wit(schema: &ResolvedSchema) -> schemas::Schema {
    let references = schema.references.iter();
    let reference = |(name, text): &(String, String)| schemas::ResolvedReference {
        name: name.clone(),
        text: text.clone(),
    };
    schemas::Schema {
        format: match schema.schema_type {
            SchemaType::Avro => SchemaFormat::Avro,
            SchemaType::Protobuf => SchemaFormat::Protobuf,
            SchemaType::Json => SchemaFormat::Json,
            SchemaType::Other => SchemaFormat::Other,
        },
        text: schema.text.clone(),
        references: references.map(reference).collect(),
    }
}

fn from_wit(schema: schemas::NewSchema) -> Result<Schema, SchemaError> {
    let schema_type = match schema.format {
        SchemaFormat::Avro => SchemaType::Avro,
        SchemaFormat::Protobuf => SchemaType::Protobuf,
        SchemaFormat::Json => SchemaType::Json,
        SchemaFormat::Other => {
            return Err(SchemaError::Refused(
                "only Avro, Protobuf and JSON Schema can be registered".to_owned(),
            ));
        }
    };
    let reference = |reference: schemas::Reference| {
        let version = i32::try_from(reference.version);
        let version = version.map_err(|_| SchemaError::Refused("versions are below 2^31".to_owned()))?;
        Ok(Reference { name: reference.name, subject: reference.subject, version })
    };
    let references = schema.references.into_iter().map(reference).collect::<Result<_, SchemaError>>()?;
    Ok(Schema { schema_type, schema: schema.text, references })
}
