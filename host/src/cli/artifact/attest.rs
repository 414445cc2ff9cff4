//! The command `codec attest`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::args::AttestArgs;
use crate::cli::artifact::access::{Access, about, parse};
use crate::cli::artifact::sign::read_private_key;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::file::{FileError, read_text};
use crate::oci::{CodecManifest, Digest, Subject, TEST_RESULT};

/// The largest report that is read, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// A report, as `codec check --report` writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReportFile {
    subject: Vec<ReportSubject>,
    predicate_type: String,
    predicate: Value,
}

#[derive(Deserialize)]
struct ReportSubject {
    digest: ReportDigest,
}

#[derive(Deserialize)]
struct ReportDigest {
    sha256: String,
}

/// A report that was attached, as it is printed.
#[derive(Serialize)]
struct AttestLine {
    reference: String,
    manifest: Digest,
    component: Digest,
    result: String,
    signed_by: String,
}

pub(in crate::cli) async fn attest(args: AttestArgs, output: Output) -> Result<Exit, CliError> {
    let (access, reference) = (Access::new(&args.access)?, parse(&args.reference)?);
    let Some(manifest) = reference.digest else {
        let (digest, _) = access.resolve_tag(&reference).await.map_err(about(&reference))?;
        return Err(CliError::Usage(format!(
            "{reference}: cannot attach a report to a tag, because it may move. It names {digest} now: name {}",
            reference.with_digest(digest)
        )));
    };
    let shown = args.report.display();
    let text = read_text(&args.report, MAX_BYTES)
        .map_err(FileError::of::<CliError>("read the report", &args.report))?;
    let report: ReportFile = serde_json::from_str(&text).map_err(|error| {
        CliError::Usage(format!(
            "{shown}: the report is malformed ({error}): write it with `ktables codec check --report`"
        ))
    })?;
    if report.predicate_type != TEST_RESULT {
        return Err(CliError::Usage(format!(
            "{shown}: this is no report of tests: its predicateType is not {TEST_RESULT}"
        )));
    }
    let key = read_private_key(&args.key)?;
    let repository = access.open(&reference)?;
    let bytes = repository.manifest(&manifest).await.map_err(about(&reference))?;
    let component = CodecManifest::parse(&bytes).map_err(about(&reference))?.component.digest;
    if !report.subject.iter().any(|subject| subject.digest.sha256 == component.hex()) {
        return Err(CliError::Refused(format!(
            "{reference}: {shown} is about another component than {component}: check that component"
        )));
    }
    let subject = Subject::read(&repository, &manifest).await.map_err(about(&reference))?;
    subject.attach_report(&repository, &key, &report.predicate).await.map_err(about(&reference))?;
    if report.predicate["result"] != "PASSED" {
        tracing::warn!(
            "the report does not say PASSED: a policy that requires a report accepts another one only"
        );
    }
    output.print_object(&AttestLine {
        reference: reference.to_string(),
        manifest,
        component,
        result: report.predicate["result"].as_str().unwrap_or("none").to_owned(),
        signed_by: key.public().hint().to_owned(),
    })?;
    Ok(Exit::Done)
}
