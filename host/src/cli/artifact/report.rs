//! The command `codec report`.

use std::collections::BTreeMap;
use std::time::Duration;

use semver::Version;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::args::{CodecReportArgs, RegistryAccessArgs};
use crate::cli::artifact::access::Access;
use crate::cli::artifact::policy::list_codec_uses;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::codec::Codecs;
use crate::config::ArtifactVerdict;
use crate::oci::{Digest, Location, Policies, Reference};
use crate::table::Table;

/// A codec of a table, as it is printed.
#[derive(Serialize)]
struct ReportLine {
    config: String,
    table: Option<String>,
    codec: String,
    reference: String,
    manifest: Option<Digest>,
    component: Option<Digest>,
    signed_by: Vec<String>,
    report: Option<String>,
    /// The newest tag of the repository that is a newer version than this one. Only with `--online`.
    newer: Option<String>,
    /// Why the codec cannot be used: not approved, revoked, or in no store.
    problem: Option<String>,
}

pub(in crate::cli) async fn report(args: CodecReportArgs, output: Output) -> Result<Exit, CliError> {
    let digest = args.digest.as_deref().map(str::parse::<Digest>).transpose()?;
    if let Some(fleet) = &args.fleet {
        return report_fleet(fleet, args.max_age, digest, output).await;
    }
    let policies = Policies::read(None)?;
    let (mut lines, mut exit, mut tags) = (Vec::new(), Exit::Done, BTreeMap::new());
    for path in &args.config {
        let access = Access::with_network(
            &RegistryAccessArgs { config: Some(path.clone()), offline: false },
            (!args.online).then_some("no --online"),
        )?;
        let lock = access.lock()?;
        for (table, name) in list_codec_uses(&access) {
            let Some(section) = access.config.codec(&name) else { continue };
            let found = access.artifacts.evaluate(&policies, table.as_deref(), &name, &section).await;
            let ArtifactVerdict { mut manifest, mut component, verdict } = found;
            // What is in no store may be in the lock file.
            let reference = String::from(section.component.clone());
            let locked = reference.parse().ok().and_then(|reference| lock.get(&reference).cloned());
            manifest = manifest.or(locked.as_ref().map(|locked| locked.manifest));
            component = component.or(locked.as_ref().map(|locked| locked.component));
            // A codec of which no digest is known may have any.
            let is_known = manifest.is_some() || component.is_some();
            let is_wanted =
                |wanted: Digest| !is_known || component == Some(wanted) || manifest == Some(wanted);
            if !digest.is_none_or(is_wanted) {
                continue;
            }
            if verdict.is_err() {
                exit = Exit::No;
            }
            let newer = match (args.online && !access.sources().is_offline(), reference.parse()) {
                (true, Ok(reference)) => find_newer(&access, &reference, &mut tags).await,
                _ => None,
            };
            let problem = verdict.as_ref().err().map(ToString::to_string);
            let verdict = verdict.unwrap_or_default();
            lines.push(ReportLine {
                config: path.display().to_string(),
                table,
                codec: name,
                reference,
                manifest,
                component,
                signed_by: verdict.signed_by,
                report: verdict.report,
                newer,
                problem,
            });
        }
    }
    if lines.is_empty() && digest.is_some() {
        exit = Exit::No;
    }
    output.print_rows(lines)?;
    Ok(exit)
}

/// Returns the newest tag of a codec's repository, if it is a newer version than the tag of the reference. A list that cannot
/// be read is reported, and is no reason to fail. `known` has the lists that were read.
async fn find_newer(
    access: &Access,
    reference: &Reference,
    known: &mut BTreeMap<Location, Vec<String>>,
) -> Option<String> {
    let current = parse_version(reference.tag.as_deref()?)?;
    if !known.contains_key(&reference.location) {
        let tags = access.sources().within(async { access.open(reference)?.tags().await }).await;
        let tags = tags.unwrap_or_else(|error| {
            tracing::warn!("{reference}: cannot look for newer versions: {error}");
            Vec::new()
        });
        known.insert(reference.location.clone(), tags);
    }
    // Somebody who runs a release does not want a trial of the next one.
    let is_wanted =
        |version: &Version| *version > current && (version.pre.is_empty() || !current.pre.is_empty());
    let versions = known[&reference.location].iter().filter_map(|tag| Some((parse_version(tag)?, tag)));
    versions.filter(|(version, _)| is_wanted(version)).max().map(|(_, tag)| tag.clone())
}

/// Parses a tag such as `1.4.0` or `v1.4.0`.
fn parse_version(tag: &str) -> Option<Version> {
    Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()
}

/// Prints what running processes publish.
async fn report_fleet(
    fleet: &str,
    max_age: Duration,
    digest: Option<Digest>,
    output: Output,
) -> Result<Exit, CliError> {
    let Some((url, topic)) =
        fleet.rsplit_once('/').filter(|(url, topic)| !url.is_empty() && !topic.is_empty())
    else {
        return Err(CliError::Usage(format!(
            "--fleet {fleet}: write LOG/TOPIC, for example kafka://HOST:PORT/ktables-fleet"
        )));
    };
    let log = crate::log::open(url)?;
    let table = Table::builder(log, topic, Codecs::default()).ttl(max_age).start().await?;
    let is_wanted = |json: &str| digest.is_none_or(|digest| json.contains(&digest.to_string()));
    let mut lines: Vec<Box<RawValue>> = Vec::new();
    for entry in table.snapshot().iter() {
        if is_wanted(entry.json()) {
            // OK because a table holds valid JSON.
            lines.push(RawValue::from_string(entry.json().to_owned()).expect("valid JSON"));
        }
    }
    let exit = if lines.is_empty() && digest.is_some() { Exit::No } else { Exit::Done };
    output.print_rows(lines)?;
    table.stop().await;
    Ok(exit)
}
