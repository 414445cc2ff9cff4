//! The command `codec verify`.

use serde::Serialize;

use crate::cli::args::VerifyCodecArgs;
use crate::cli::artifact::access::{Access, about, parse};
use crate::cli::artifact::sign::read_public_key;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::oci::{Digest, FoundSignatures, Policies, PublicKey, SignatureResult, Use};

/// The result of a verification, as it is printed.
#[derive(Serialize)]
struct VerifyLine {
    reference: String,
    manifest: Digest,
    component: Digest,
    signed_by: Vec<String>,
    /// The rules that approve the codec.
    rules: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<String>,
}

pub(in crate::cli) async fn verify(args: VerifyCodecArgs, output: Output) -> Result<Exit, CliError> {
    let (access, reference) = (Access::new(&args.access)?, parse(&args.reference)?);
    let keys = args.key.iter().map(|path| read_public_key(path)).collect::<Result<Vec<_>, _>>()?;
    let policies =
        if keys.is_empty() { Policies::read(args.policy.as_deref())? } else { Policies::default() };
    if keys.is_empty() && policies.is_empty() {
        return Err(CliError::Usage(
            "there is no policy: name a public key with --key, or a policy with --policy".to_owned(),
        ));
    }
    let codec = access.find(&reference).await.map_err(about(&reference))?;
    if args.explain {
        let trusted = if keys.is_empty() { policies.keys() } else { keys.clone() };
        let found = access.sources().local_signatures(&codec).await.map_err(about(&reference))?;
        for line in explain(&found, &trusted) {
            tracing::warn!("{line}");
        }
    }
    let verify = async {
        let usage = Use { table: args.table.as_deref(), limits: None };
        // The policies of the machine apply with keys, too.
        let mut verdict = policies.approve(access.sources(), &codec, usage).await?;
        if !keys.is_empty() {
            verdict.signed_by.extend(access.sources().verify_with(&codec, &keys).await?.signed_by);
            verdict.signed_by.dedup();
        }
        Ok(verdict)
    };
    let verdict = verify.await.map_err(about(&reference))?;
    output.print_object(&VerifyLine {
        reference: codec.reference.to_string(),
        manifest: codec.manifest,
        component: codec.component,
        signed_by: verdict.signed_by,
        rules: verdict.rules,
        report: verdict.report,
    })?;
    Ok(Exit::Done)
}

/// Says of each signature why it counts or does not count.
fn explain(found: &FoundSignatures, keys: &[PublicKey]) -> Vec<String> {
    let results = found.verify(keys);
    if results.is_empty() {
        return vec![found.unsigned_error().to_string()];
    }
    let count = results.len();
    let describe = |(index, result): (usize, SignatureResult)| {
        let said = match result {
            SignatureResult::Approval(approval) if approval.annotations.is_empty() => {
                format!("approves the codec, by {}", approval.key)
            }
            SignatureResult::Approval(approval) => {
                let said: Vec<String> = approval
                    .annotations
                    .iter()
                    .map(|(name, value)| format!("{name} = \"{value}\""))
                    .collect();
                let said = crate::escape::one_line_within(&said.join(", "), 500).to_string();
                format!("approves the codec, by {}, with {said}", approval.key)
            }
            SignatureResult::Report(report) => format!("is a report of tests, by {}", report.key),
            SignatureResult::Other { key, kind } => {
                format!("is neither an approval nor a report ({kind}), by {key}")
            }
            SignatureResult::UnknownKey { hint } if hint.is_empty() => "is by an unknown key".to_owned(),
            SignatureResult::UnknownKey { hint } => format!("is by an unknown key (hint {hint})"),
            SignatureResult::OtherManifest { key } => format!("names another manifest, by {key}"),
            SignatureResult::Malformed(reason) => format!("cannot be used: {reason}"),
        };
        format!("signature {} of {count} {said}", index + 1)
    };
    results.into_iter().enumerate().map(describe).collect()
}
