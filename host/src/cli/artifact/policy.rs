//! The command `policy check`.

use serde::Serialize;

use crate::cli::args::PolicyCheckArgs;
use crate::cli::artifact::access::Access;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::config::{ArtifactVerdict, TableCodec, is_built_in};
use crate::oci::{Digest, OciError, Policies};

/// The verdict about a codec of a table, as it is printed.
#[derive(Serialize)]
struct VerdictLine {
    table: Option<String>,
    codec: String,
    approved: bool,
    reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<Digest>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    signed_by: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub(in crate::cli) async fn check(args: PolicyCheckArgs, output: Output) -> Result<Exit, CliError> {
    let access = Access::new(&args.access)?;
    if !access.path.exists() {
        return Err(CliError::Usage(format!(
            "{} does not exist: name the configuration with --config",
            access.path.display()
        )));
    }
    let policies = Policies::read(args.policy.as_deref())?;
    check_policies(&policies, args.required)?;
    let (mut lines, mut exit, mut failure) = (Vec::new(), Exit::Done, None);
    check_names(&access)?;
    for (table, name) in list_codec_uses(&access) {
        let Some(section) = access.config.codec(&name) else { continue };
        let reference = String::from(section.component.clone());
        let found = access.artifacts.evaluate(&policies, table.as_deref(), &name, &section).await;
        let ArtifactVerdict { manifest, component, verdict } = found;
        let mut line = VerdictLine {
            table,
            codec: name.clone(),
            approved: verdict.is_ok(),
            reference,
            manifest,
            component,
            signed_by: Vec::new(),
            rules: Vec::new(),
            reason: None,
        };
        match verdict {
            Ok(verdict) => (line.signed_by, line.rules) = (verdict.signed_by, verdict.rules),
            Err(error) => {
                let error = error.about(&format!("codecs.{name}"));
                tracing::error!("{error}");
                line.reason = Some(error.to_string());
                exit = Exit::No;
                if !matches!(error, OciError::Refused(_) | OciError::NotFound(_)) {
                    failure.get_or_insert(error);
                }
            }
        }
        lines.push(line);
    }
    output.print_rows(lines)?;
    match failure {
        // Whether it is approved is not known. It was logged.
        Some(OciError::Usage(_)) => Err(CliError::Usage("not every codec could be checked".to_owned())),
        Some(_) => Err(CliError::Codecs("not every codec could be checked".to_owned())),
        None => Ok(exit),
    }
}

/// Warns that there is no policy, or fails if one is required.
fn check_policies(policies: &Policies, is_required: bool) -> Result<(), CliError> {
    if policies.is_empty() && is_required {
        return Err(CliError::Refused(
            "there is no policy, and --required asks for one: neither /etc/ktables/policy.toml exists, nor is one named with \
             --policy or KTABLES_POLICY"
                .to_owned(),
        ));
    }
    if policies.is_empty() {
        tracing::warn!(
            "there is no policy: every codec is approved. Name one with --policy or KTABLES_POLICY."
        );
    }
    Ok(())
}

/// Fails if a table names a codec that does not exist: no rule would be asked about it.
fn check_names(access: &Access) -> Result<(), CliError> {
    for (table, config) in &access.config.tables {
        for codec in [&config.key_codec, &config.value_codec, &config.group_scheme].into_iter().flatten() {
            if let TableCodec::Named(name) = codec
                && access.config.codec(name).is_none()
                && !is_built_in(name)
            {
                return Err(CliError::Usage(format!("tables.{table}: there is no codec `{name}`")));
            }
        }
    }
    Ok(())
}

/// Returns the codecs of the configuration that are components, with the tables that use them; `None` for those that no table
/// uses.
pub(super) fn list_codec_uses(access: &Access) -> Vec<(Option<String>, String)> {
    let mut uses = Vec::new();
    for (table, config) in &access.config.tables {
        for codec in [&config.key_codec, &config.value_codec, &config.group_scheme].into_iter().flatten() {
            if let TableCodec::Named(name) = codec
                && access.config.codec(name).is_some()
            {
                uses.push((Some(table.clone()), name.clone()));
            }
        }
    }
    uses.dedup();
    for name in access.config.codecs.keys() {
        if !uses.iter().any(|(_, used)| used == name) {
            uses.push((None, name.clone()));
        }
    }
    uses
}
