//! The arguments of the commands for schema registries.

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::args::table::TopicArgs;
use crate::registry::{Compatibility, Reference, SchemaType, VersionName};

/// Read and change schemas in a schema registry.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SchemaCommand {
    #[command(visible_alias = "ls")]
    List(ListSchemasArgs),
    Get(GetSchemaArgs),
    Versions(VersionsArgs),
    Add(AddSchemaArgs),
    Check(CheckSchemaArgs),
    Diff(DiffSchemaArgs),
    #[command(visible_alias = "rm")]
    Delete(DeleteSchemaArgs),
    /// Show or set the compatibility level: which changes of schemas are allowed.
    #[command(subcommand)]
    Compat(CompatCommand),
    Ids(IdsArgs),
}

/// A schema registry.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct RegistryArgs {
    /// The schema registry: its address, or its name in the configuration, with credentials
    /// [default: $KTABLES_SCHEMA_REGISTRY].
    #[arg(long, value_name = "REGISTRY", help_heading = "Registry")]
    pub(in crate::cli) registry: Option<String>,
    /// The configuration file [default: ktables.toml].
    #[arg(long, value_name = "FILE", help_heading = "Registry")]
    pub(in crate::cli) config: Option<PathBuf>,
}

/// List the subjects, with the newest version of each.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables schema list --registry http://localhost:8081
  ktables schema list --registry prod --prefix orders-")]
pub(in crate::cli) struct ListSchemasArgs {
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryArgs,
    /// Only subjects that begin with this.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) prefix: Option<String>,
    /// Also subjects that were deleted, and can be restored.
    #[arg(long)]
    pub(in crate::cli) deleted: bool,
}

/// Print a schema.
///
/// Exit code 1 if there is no such schema.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables schema get orders-value
  ktables schema get orders-value@3 --text > orders.avsc
  ktables schema get --id 17")]
pub(in crate::cli) struct GetSchemaArgs {
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryArgs,
    /// The subject, and its version [default: the newest one].
    #[arg(value_name = "SUBJECT[@VERSION]", required_unless_present = "id", value_parser = parse_target)]
    pub(in crate::cli) target: Option<Target>,
    /// The id of the schema.
    #[arg(long, value_name = "ID", conflicts_with = "target")]
    pub(in crate::cli) id: Option<u32>,
    /// Print the text of the schema only.
    #[arg(long)]
    pub(in crate::cli) text: bool,
}

/// List the versions of a subject.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables schema versions orders-value")]
pub(in crate::cli) struct VersionsArgs {
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryArgs,
    /// The subject.
    #[arg(value_name = "SUBJECT", value_parser = parse_subject)]
    pub(in crate::cli) subject: String,
}

/// A subject, and a schema in a file.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct NewVersionArgs {
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryArgs,
    /// The subject.
    #[arg(value_name = "SUBJECT", value_parser = parse_subject)]
    pub(in crate::cli) subject: String,
    /// The file with the schema.
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
    /// Its format [default: that of the ending: .avsc, .proto, or .json for JSON Schema].
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    pub(in crate::cli) schema_type: Option<SchemaType>,
    /// A schema that this one refers to by a name: the full name of a type in Avro, an imported file in Protobuf, an
    /// address in JSON Schema. May be repeated.
    #[arg(long, value_name = "NAME=SUBJECT@VERSION", value_parser = parse_reference)]
    pub(in crate::cli) reference: Vec<Reference>,
}

/// Add a version to a subject, unless it has the schema already.
///
/// Exit code 1 if the schema is not compatible with earlier versions.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables schema add orders-value orders.avsc
  ktables schema add orders-value orders.proto --reference address.proto=address@1")]
pub(in crate::cli) struct AddSchemaArgs {
    #[command(flatten)]
    pub(in crate::cli) version: NewVersionArgs,
}

/// Check whether a schema may become the next version of a subject.
///
/// Exit code 1 if it may not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables schema check orders-value orders.avsc")]
pub(in crate::cli) struct CheckSchemaArgs {
    #[command(flatten)]
    pub(in crate::cli) version: NewVersionArgs,
}

/// Compare two versions of a subject, or of two subjects, line by line.
///
/// Exit code 1 if they differ.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables schema diff orders-value@1 orders-value
  ktables schema diff orders-value payments-value")]
pub(in crate::cli) struct DiffSchemaArgs {
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryArgs,
    #[arg(value_name = "SUBJECT[@VERSION]", value_parser = parse_target)]
    pub(in crate::cli) before: Target,
    #[arg(value_name = "SUBJECT[@VERSION]", value_parser = parse_target)]
    pub(in crate::cli) after: Target,
}

/// Delete a version of a subject, or all of them. Without --yes, only lists what would be deleted, with exit code 2.
///
/// Deleted schemas keep their ids, so that records with them can be read, until they are deleted permanently.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables schema delete orders-value@2
  ktables schema delete orders-value --permanent --yes")]
pub(in crate::cli) struct DeleteSchemaArgs {
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryArgs,
    /// The subject, and the version to delete [default: all versions].
    #[arg(value_name = "SUBJECT[@VERSION]", value_parser = parse_target)]
    pub(in crate::cli) target: Target,
    /// Delete for good: records with the ids of the schemas may become unreadable.
    #[arg(long)]
    pub(in crate::cli) permanent: bool,
    /// Confirm the deletion.
    #[arg(long)]
    pub(in crate::cli) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CompatCommand {
    Get(GetCompatArgs),
    Set(SetCompatArgs),
}

/// Show the compatibility level of a subject, or of all subjects without a setting of their own.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables schema compat get orders-value")]
pub(in crate::cli) struct GetCompatArgs {
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryArgs,
    /// The subject.
    #[arg(value_name = "SUBJECT", value_parser = parse_subject)]
    pub(in crate::cli) subject: Option<String>,
}

/// Set the compatibility level of a subject, or of all subjects without a setting of their own.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables schema compat set FULL_TRANSITIVE orders-value")]
pub(in crate::cli) struct SetCompatArgs {
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryArgs,
    #[arg(value_name = "LEVEL", value_enum, ignore_case = true)]
    pub(in crate::cli) level: Compatibility,
    /// The subject.
    #[arg(value_name = "SUBJECT", value_parser = parse_subject)]
    pub(in crate::cli) subject: Option<String>,
}

/// List the ids of schemas that the records of a topic have, and how many records have each.
///
/// Reads the whole topic. With a registry, shows what each id stands for. Exit code 1 if the registry does not know one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables schema ids --log kafka://localhost:9092 --topic orders
  ktables schema ids --log kafka://localhost:9092 --topic orders --registry http://localhost:8081")]
pub(in crate::cli) struct IdsArgs {
    #[command(flatten)]
    pub(in crate::cli) topic: TopicArgs,
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryArgs,
}

/// A subject, and one of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Target {
    pub(in crate::cli) subject: String,
    pub(in crate::cli) version: Option<VersionName>,
}

/// Fails for names that the address of a request cannot have.
fn parse_subject(text: &str) -> Result<String, String> {
    match text {
        "" | "." | ".." => Err("a subject is not empty, `.` or `..`".to_owned()),
        subject => Ok(subject.to_owned()),
    }
}

fn parse_target(text: &str) -> Result<Target, String> {
    // A subject may contain `@`.
    let (subject, version) = match text.rsplit_once('@') {
        Some((subject, version)) => {
            let version = version
                .parse()
                .map_err(|error| format!("{error}; if `@` belongs to the subject, write {text}@latest"))?;
            (subject, Some(version))
        }
        None => (text, None),
    };
    Ok(Target { subject: parse_subject(subject)?, version })
}

fn parse_reference(text: &str) -> Result<Reference, String> {
    let expected = || format!("`{text}` is not a reference: write NAME=SUBJECT@VERSION");
    // The name may be an address with `=`.
    let (name, target) = text.rsplit_once('=').ok_or_else(expected)?;
    match parse_target(target)? {
        Target { subject, version: Some(VersionName::Number(version)) } => {
            Ok(Reference { name: name.to_owned(), subject, version })
        }
        _ => Err(expected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_subject_and_a_version() {
        let target = |text: &str| parse_target(text).map(|target| (target.subject, target.version));
        assert_eq!(target("a"), Ok(("a".to_owned(), None)));
        assert_eq!(target("a@b@2"), Ok(("a@b".to_owned(), Some(VersionName::Number(2)))));
        assert_eq!(target("a@latest"), Ok(("a".to_owned(), Some(VersionName::Latest))));
        for text in ["", ".", "..@1", "@1", "a@", "a@0", "a@-1", "a@x"] {
            assert!(target(text).is_err(), "{text}");
        }
        let reference = parse_reference("n=s@3").unwrap();
        assert_eq!((&*reference.name, &*reference.subject, reference.version), ("n", "s", 3));
        assert_eq!(parse_reference("http://a?b=c=s@3").unwrap().name, "http://a?b=c");
        for text in ["n", "n=s", "n=s@latest"] {
            assert!(parse_reference(text).is_err(), "{text}");
        }
    }
}
