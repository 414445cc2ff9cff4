//! The commands for schema registries.

mod ids;
mod open;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use similar::TextDiff;

use crate::cli::args::{
    CompatCommand, DeleteSchemaArgs, DiffSchemaArgs, GetSchemaArgs, ListSchemasArgs, NewVersionArgs,
    SchemaCommand, Target, VersionsArgs,
};
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::escape::{escape_name, one_line};
use crate::file::{FileError, read_text};
use crate::registry::{
    Compatibility, Reference, Registry, RegistryError, Schema, SchemaType, SubjectVersion, VersionName,
    WireId,
};

use open::open;
pub(super) use open::{is_address, registry_variable};

/// The largest schema that is read from a file, in bytes.
const MAX_SCHEMA_BYTES: usize = 4 << 20;

/// How long two schemas are compared before the difference is not the shortest one.
const DIFF_TIMEOUT: Duration = Duration::from_secs(5);

/// How many subjects are asked for at once.
const REQUESTS_AT_ONCE: usize = 8;

/// A schema, as it is printed.
#[derive(Debug, Serialize)]
struct SchemaJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i32>,
    id: u32,
    #[serde(rename = "type")]
    schema_type: SchemaType,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<&'a String>,
    #[serde(skip_serializing_if = "<[Reference]>::is_empty")]
    references: &'a [Reference],
}

/// A version of a subject without its text.
#[derive(Debug, Serialize)]
struct VersionJson {
    subject: String,
    version: i32,
    id: u32,
    #[serde(rename = "type")]
    schema_type: SchemaType,
}

impl From<SubjectVersion> for VersionJson {
    fn from(version: SubjectVersion) -> Self {
        let SubjectVersion { subject, version, id, schema } = version;
        Self { subject, version, id, schema_type: schema.schema_type }
    }
}

pub(super) async fn run(command: SchemaCommand, output: Output) -> Result<Exit, CliError> {
    match command {
        SchemaCommand::List(args) => list(&args, output).await,
        SchemaCommand::Get(args) => get(&args, output).await,
        SchemaCommand::Versions(args) => versions(&args, output).await,
        SchemaCommand::Add(args) => add(&args.version, output).await,
        SchemaCommand::Check(args) => check(&args.version, output).await,
        SchemaCommand::Diff(args) => diff(&args, output).await,
        SchemaCommand::Delete(args) => delete(&args, output).await,
        SchemaCommand::Compat(CompatCommand::Get(args)) => {
            let (registry, subject) = (open(&args.registry)?, args.subject.as_deref());
            let (found, inherited) = match registry.compatibility(subject).await? {
                None if subject.is_some() => (registry.compatibility(None).await?, true),
                found => (found, false),
            };
            print_compatibility(&CompatibilityJson { subject, compatibility: found, inherited }, output)
        }
        SchemaCommand::Compat(CompatCommand::Set(args)) => {
            let (subject, level) = (args.subject.as_deref(), args.level);
            open(&args.registry)?.set_compatibility(subject, level).await?;
            let compatibility = Some(level);
            print_compatibility(&CompatibilityJson { subject, compatibility, inherited: false }, output)
        }
        SchemaCommand::Ids(args) => ids::ids(&args, output).await,
    }
}

/// Which changes are allowed.
#[derive(Debug, Serialize)]
struct CompatibilityJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    compatibility: Option<Compatibility>,
    /// Whether it is that of all subjects without a setting of their own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    inherited: bool,
}

fn print_compatibility(compatibility: &CompatibilityJson<'_>, output: Output) -> Result<Exit, CliError> {
    output.print_object(compatibility)?;
    Ok(Exit::Done)
}

async fn list(args: &ListSchemasArgs, output: Output) -> Result<Exit, CliError> {
    #[derive(Serialize)]
    struct SubjectJson {
        subject: String,
        #[serde(flatten)]
        newest: Option<NewestJson>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        deleted: bool,
    }
    #[derive(Serialize)]
    struct NewestJson {
        version: i32,
        id: u32,
        #[serde(rename = "type")]
        schema_type: SchemaType,
    }
    use futures_util::future::BoxFuture;
    use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
    let registry = open(&args.registry)?;
    let mut subjects = registry.subjects(args.deleted).await?;
    if let Some(prefix) = &args.prefix {
        subjects.retain(|subject| subject.starts_with(prefix));
    }
    let registry = &registry;
    let row = async |subject: String| match registry.version(&subject, VersionName::Latest).await {
        Ok(newest) => {
            let SubjectVersion { version, id, schema, .. } = newest;
            let newest = NewestJson { version, id, schema_type: schema.schema_type };
            Ok(SubjectJson { subject, newest: Some(newest), deleted: false })
        }
        Err(error) if error.is_not_found() => Ok(SubjectJson { subject, newest: None, deleted: true }),
        Err(error) => Err(error),
    };
    let rows: Vec<BoxFuture<'_, _>> = subjects.into_iter().map(|subject| row(subject).boxed()).collect();
    let rows: Vec<SubjectJson> = stream::iter(rows).buffered(REQUESTS_AT_ONCE).try_collect().await?;
    output.print_rows(rows)?;
    Ok(Exit::Done)
}

async fn get(args: &GetSchemaArgs, output: Output) -> Result<Exit, CliError> {
    let registry = open(&args.registry)?;
    let (place, id, schema) = match (&args.target, args.id) {
        (Some(target), _) => {
            let SubjectVersion { subject, version, id, schema } = find(&registry, target).await?;
            (Some((subject, version)), id, schema)
        }
        (None, id) => {
            let id = id.unwrap_or_default();
            (None, id, registry.schema_of(WireId::Number(id)).await?)
        }
    };
    let text = schema.schema.trim_end();
    if !args.text {
        output.print_object(&SchemaJson {
            subject: place.as_ref().map(|(subject, _)| &**subject),
            version: place.as_ref().map(|(_, version)| *version),
            id,
            schema_type: schema.schema_type,
            // A table has no room for it.
            schema: output.is_json().then_some(&schema.schema),
            references: &schema.references,
        })?;
    }
    if args.text || !output.is_json() {
        // As it is: it may be written to a file. A terminal shows control characters escaped.
        let mut out = output.writer();
        writeln!(out, "{text}")?;
        out.flush()?;
    }
    Ok(Exit::Done)
}

async fn find(registry: &Registry, target: &Target) -> Result<SubjectVersion, RegistryError> {
    registry.version(&target.subject, target.version.unwrap_or(VersionName::Latest)).await
}

async fn versions(args: &VersionsArgs, output: Output) -> Result<Exit, CliError> {
    let registry = open(&args.registry)?;
    let mut rows: Vec<VersionJson> = Vec::new();
    for number in registry.versions(&args.subject, false).await? {
        rows.push(registry.version(&args.subject, VersionName::Number(number)).await?.into());
    }
    output.print_rows(rows)?;
    Ok(Exit::Done)
}

async fn add(args: &NewVersionArgs, output: Output) -> Result<Exit, CliError> {
    #[derive(Serialize)]
    struct AddedJson<'a> {
        subject: &'a str,
        version: Option<i32>,
        id: u32,
        #[serde(rename = "type")]
        schema_type: SchemaType,
    }
    let (registry, schema) = (open(&args.registry)?, read(args)?);
    let added = registry.register(&args.subject, &schema).await?;
    let version = match added.version {
        // It is added, whatever becomes of this request.
        None => registry.lookup(&args.subject, &schema).await.ok().map(|found| found.version),
        version => version,
    };
    let (subject, schema_type) = (&*args.subject, schema.schema_type);
    output.print_object(&AddedJson { subject, version, id: added.id, schema_type })?;
    Ok(Exit::Done)
}

async fn check(args: &NewVersionArgs, output: Output) -> Result<Exit, CliError> {
    #[derive(Serialize)]
    struct CheckJson<'a> {
        subject: &'a str,
        compatible: bool,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        reasons: Vec<String>,
    }
    let (registry, schema) = (open(&args.registry)?, read(args)?);
    let checked = registry.check(&args.subject, &schema).await?;
    let compatible = checked.is_compatible;
    output.print_object(&CheckJson { subject: &args.subject, compatible, reasons: checked.messages })?;
    Ok(if compatible { Exit::Done } else { Exit::No })
}

/// Reads a schema from a file.
fn read(args: &NewVersionArgs) -> Result<Schema, CliError> {
    let path = &args.file;
    let text =
        read_text(path, MAX_SCHEMA_BYTES).map_err(FileError::of::<CliError>("read the schema", path))?;
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let schema_type = match (args.schema_type, ending) {
        (Some(schema_type), _) => schema_type,
        (None, "avsc") => SchemaType::Avro,
        (None, "proto") => SchemaType::Protobuf,
        (None, "json") => SchemaType::Json,
        _ => return Err(unknown_type(path)),
    };
    Ok(Schema { schema_type, schema: text, references: args.reference.clone() })
}

fn unknown_type(path: &Path) -> CliError {
    CliError::Usage(format!(
        "which format has {}? Name it with --type, or by the ending .avsc, .proto, or .json for JSON Schema",
        path.display()
    ))
}

async fn diff(args: &DiffSchemaArgs, output: Output) -> Result<Exit, CliError> {
    let registry = open(&args.registry)?;
    let (before, after) = (find(&registry, &args.before).await?, find(&registry, &args.after).await?);
    let [old, new] = [&before, &after].map(|version| lines(&version.schema));
    if old == new {
        return Ok(Exit::Done);
    }
    let name = |version: &SubjectVersion| format!("{}@{}", escape_name(&version.subject), version.version);
    let diff = TextDiff::configure().timeout(DIFF_TIMEOUT).diff_lines(old.as_str(), new.as_str());
    let text = diff.unified_diff().header(&name(&before), &name(&after)).to_string();
    text.lines().try_for_each(|line| output.print_line(&one_line(line).to_string()))?;
    Ok(Exit::No)
}

/// Returns a schema, its format and its references as lines. JSON is written with a line for each member.
fn lines(schema: &Schema) -> String {
    let text = match serde_json::from_str::<serde_json::Value>(&schema.schema) {
        Ok(json) => serde_json::to_string_pretty(&json).unwrap_or_default(),
        Err(_) => schema.schema.trim_end().to_owned(),
    };
    let references = schema.references.iter();
    let references: String = references
        .map(|Reference { name, subject, version }| format!("reference {name}={subject}@{version}\n"))
        .collect();
    format!("{:?}\n{references}{text}\n", schema.schema_type)
}

async fn delete(args: &DeleteSchemaArgs, output: Output) -> Result<Exit, CliError> {
    #[derive(Serialize)]
    struct DeletedJson<'a> {
        subject: &'a str,
        version: i32,
    }
    let registry = open(&args.registry)?;
    let Target { subject, version } = &args.target;
    let versions = match version {
        // One that was deleted before can be deleted permanently.
        Some(VersionName::Number(number)) if args.permanent => vec![*number],
        Some(name @ VersionName::Number(_)) => vec![registry.version(subject, *name).await?.version],
        Some(VersionName::Latest) => vec![registry.version(subject, VersionName::Latest).await?.version],
        // What was deleted before can be deleted permanently.
        None => registry.versions(subject, args.permanent).await?,
    };
    let rows = || versions.iter().map(|&version| DeletedJson { subject, version });
    if !args.yes {
        output.print_rows(rows())?;
        let what = if args.permanent {
            "these versions would be deleted for good, and records with their ids may become unreadable"
        } else {
            "these versions would be deleted"
        };
        return Err(CliError::Usage(format!("{what}: add --yes to confirm that")));
    }
    match version {
        Some(_) => {
            for version in &versions {
                registry.delete_version(subject, *version, args.permanent).await?;
            }
        }
        None => registry.delete_subject(subject, args.permanent).await?,
    }
    output.print_rows(rows())?;
    Ok(Exit::Done)
}
