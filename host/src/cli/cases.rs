//! Cases of rejected records: `rejects --export` writes them, and `codec reproduce` tries them with a component.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::authors::{Case, CasePart};
use crate::cli::args::ReproduceArgs;
use crate::cli::codec::{engine_options, load_component};
use crate::cli::limits::parse_limits;
use crate::cli::open::ResolvedTable;
use crate::cli::output::Output;
use crate::cli::records::read_range;
use crate::cli::{CliError, Exit};
use crate::file::{FileError, Replacement, read_text};
use crate::log::{Offset, OffsetRange, Partition};
use crate::table::{RecordPart, RejectedRecord};
use crate::wasm::{Engine, Limits};

/// The largest case, in bytes: a key and a value of the largest record, in base64.
const MAX_CASE_BYTES: usize = 64 << 20;

/// What `rejects --export` prints.
#[derive(Serialize)]
struct ExportLine {
    folder: String,
    /// The number of cases that were written.
    cases: usize,
    /// The number of rejected records without a case: a built-in codec rejected them, or the log no longer has them.
    skipped: usize,
}

/// What `codec reproduce` prints.
#[derive(Serialize)]
struct ReproduceLine<'a> {
    topic: &'a str,
    partition: Partition,
    offset: Offset,
    /// Whether the component rejects the record for the same reason.
    reproduced: bool,
    /// Whether the component accepts the record.
    fixed: bool,
    expected_kind: &'a str,
    expected_message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decoded: Option<String>,
}

/// The largest limits that a case may set, because whoever wrote it may not be trusted.
const MAX_MEMORY: usize = 1 << 30;
const MAX_OUTPUT: usize = 64 << 20;
const MAX_DEADLINE: Duration = Duration::from_secs(60);

/// Fails if a case sets larger limits than it may.
fn check_limits_of_case(limits: &Limits, case: &Path) -> Result<(), CliError> {
    let deadlines = [limits.deadline, limits.deadline_per_record, limits.start_deadline];
    let name = match limits {
        _ if limits.memory > MAX_MEMORY => "memory",
        _ if limits.output > MAX_OUTPUT => "output",
        _ if deadlines.iter().any(|deadline| *deadline > MAX_DEADLINE) => "time",
        _ => return Ok(()),
    };
    Err(CliError::Usage(format!(
        "{}: its limit of {name} is larger than a case may set: at most {MAX_MEMORY} bytes of memory, {MAX_OUTPUT} bytes \
         of output and deadlines of {MAX_DEADLINE:?}. Lower it in the file, and use --limit for larger ones",
        case.display()
    )))
}

/// Writes a case for each of these rejected records of a table.
pub(super) async fn export(
    resolved: &ResolvedTable,
    rejects: &[RejectedRecord],
    folder: &Path,
    output: Output,
) -> Result<(), CliError> {
    fs::create_dir_all(folder).map_err(FileError::of::<CliError>("create", folder))?;
    let mut by_partition: BTreeMap<Partition, BTreeSet<Offset>> = BTreeMap::new();
    for reject in rejects {
        by_partition.entry(reject.partition).or_default().insert(reject.offset);
    }
    let (log, topic) = (resolved.log(), resolved.topic());
    let mut written = 0;
    for (partition, offsets) in by_partition {
        // OK because each partition has at least one offset.
        let (first, last) = (*offsets.first().expect("an offset"), *offsets.last().expect("an offset"));
        let range = OffsetRange { partition, start: first, end: last + 1 };
        for batch in read_range(log.as_ref(), topic, range, usize::MAX).await? {
            for record in (0..batch.len()).map(|index| batch.get(index)) {
                let reject = rejects
                    .iter()
                    .find(|reject| (reject.partition, reject.offset) == (record.partition, record.offset));
                let Some(reject) = reject else { continue };
                let part = match reject.part {
                    RecordPart::Key => CasePart::Key,
                    RecordPart::Value => CasePart::Value,
                };
                let Some(settings) = resolved.component_settings(reject.part) else { continue };
                let (config, limits) = (&settings.config, &settings.limits);
                let Some(case) = Case::new(topic, &record, part, &reject.reason, config, limits) else {
                    continue;
                };
                write_case(&case, folder)?;
                written += 1;
            }
        }
    }
    let skipped = rejects.len() - written;
    output.print_object(&ExportLine { folder: folder.display().to_string(), cases: written, skipped })?;
    Ok(())
}

fn write_case(case: &Case, folder: &Path) -> Result<(), CliError> {
    let path = folder.join(format!("{}-{}-{}.json", case.topic, case.partition, case.offset));
    let write = || {
        let mut out = Replacement::new(&path)?;
        serde_json::to_writer_pretty(&mut out, case)?;
        out.write_all(b"\n")?;
        out.persist()
    };
    write().map_err(FileError::of::<CliError>("write", &path))
}

pub(super) async fn reproduce(args: ReproduceArgs, output: Output) -> Result<Exit, CliError> {
    tokio::task::spawn_blocking(move || reproduce_blocking(&args, output)).await?
}

fn reproduce_blocking(args: &ReproduceArgs, output: Output) -> Result<Exit, CliError> {
    let path = &args.case;
    let text = read_text(path, MAX_CASE_BYTES).map_err(FileError::of::<CliError>("read", path))?;
    let malformed = |reason: String| CliError::Usage(format!("{}: {reason}", path.display()));
    let case: Case = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    if !case.is_complete() {
        return Err(malformed("the rejected part of the record is null".to_owned()));
    }
    let own: Vec<String> = case.limits.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let own = parse_limits(&format!("{}: limits", args.case.display()), &own)?;
    check_limits_of_case(&own.limits(), &args.case)?;
    let limits = parse_limits("--limit", &args.limit)?.or(&own).limits();
    let component = load_component(&Engine::new(engine_options())?, &args.file, limits)?;
    let outcome = case.reproduce(&component)?;
    let (reason, decoded) = match outcome {
        Ok(decoded) => (None, Some(decoded)),
        Err(reason) => (Some(reason), None),
    };
    output.print_object(&ReproduceLine {
        topic: &case.topic,
        partition: case.partition,
        offset: case.offset,
        reproduced: reason
            .as_ref()
            .is_some_and(|reason| case.is_same_reason(reason.kind.name(), &reason.message)),
        fixed: decoded.is_some(),
        expected_kind: &case.kind,
        expected_message: &case.message,
        kind: reason.as_ref().map(|reason| reason.kind.name()),
        message: reason.map(|reason| reason.message),
        decoded: decoded.clone(),
    })?;
    Ok(if decoded.is_some() { Exit::Done } else { Exit::No })
}
