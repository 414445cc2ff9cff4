//! The command `codec report`.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::args::{CodecReportArgs, RegistryAccessArgs};
use crate::cli::artifact::access::Access;
use crate::cli::artifact::policy::list_codec_uses;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::codec::Codecs;
use crate::config::ArtifactVerdict;
use crate::oci::{Digest, Policies};
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
    /// Why the codec cannot be used: not approved, revoked, or in no store.
    problem: Option<String>,
}

pub(in crate::cli) async fn report(args: CodecReportArgs, output: Output) -> Result<Exit, CliError> {
    let digest = args.digest.as_deref().map(str::parse::<Digest>).transpose()?;
    if let Some(fleet) = &args.fleet {
        return report_fleet(fleet, args.max_age, digest, output).await;
    }
    let policies = Policies::read(None)?;
    let (mut lines, mut exit) = (Vec::new(), Exit::Done);
    for path in &args.config {
        let access = Access::new(&RegistryAccessArgs { config: Some(path.clone()), offline: !args.online })?;
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
