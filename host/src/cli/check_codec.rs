//! The command `codec check`.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::{Value, json};

use crate::authors::{CheckOptions, TestResult, check as check_component};
use crate::cli::args::CheckArgs;
use crate::cli::codec::load;
use crate::cli::output::Output;
use crate::cli::samples::{Sample, read_samples};
use crate::cli::{CliError, Exit};
use crate::file::{FileError, Replacement};
use crate::wasm::{Component, SUPPORTED_VERSIONS, WasmError};

/// What `codec check` prints in the end.
#[derive(Serialize)]
struct Summary<'a> {
    file: String,
    digest: &'a str,
    accepted: bool,
    passed: usize,
    failed: usize,
}

pub(super) async fn check(args: CheckArgs, output: Output) -> Result<Exit, CliError> {
    let mut samples = Vec::new();
    for place in &args.samples {
        samples.extend(read_samples(place).await?);
    }
    tokio::task::spawn_blocking(move || check_blocking(&args, samples, output)).await?
}

fn check_blocking(args: &CheckArgs, samples: Vec<Sample>, output: Output) -> Result<Exit, CliError> {
    let component = match load(&args.component) {
        Ok(component) => component,
        Err(CliError::Component(WasmError::Refused { name, reasons })) => {
            for reason in reasons {
                tracing::error!("component {name} is refused: {reason}");
            }
            return Ok(Exit::No);
        }
        Err(CliError::Component(error @ (WasmError::Faulted { .. } | WasmError::MissingExport { .. }))) => {
            tracing::error!("{error}");
            return Ok(Exit::No);
        }
        Err(error) => return Err(error),
    };
    let kinds = component.codec_kinds();
    let options = CheckOptions {
        topic: args.component.topic.clone(),
        config: args.component.config.clone(),
        fuzz: args.fuzz,
        samples: samples.iter().flat_map(|sample| sample.requests(&kinds)).collect(),
    };
    let results = match check_component(&component, &options) {
        Err(error @ WasmError::Faulted { .. }) => {
            tracing::error!("{error}");
            return Ok(Exit::No);
        }
        results => results?,
    };
    let failed = results.iter().filter(|result| !result.passed).count();
    if let Some(path) = &args.report {
        let report = report(&component, args, &results);
        let write = || {
            let mut out = Replacement::new(path)?;
            writeln!(out, "{report}")?;
            out.persist()
        };
        write().map_err(FileError::of::<CliError>("write", path))?;
    }
    output.print_rows(&results)?;
    output.print_object(&Summary {
        file: args.component.file.display().to_string(),
        digest: &component.id().digest,
        accepted: failed == 0,
        passed: results.len() - failed,
        failed,
    })?;
    Ok(if failed == 0 { Exit::Done } else { Exit::No })
}

/// Returns the result as an in-toto statement of the type test-result.
fn report(component: &Component, args: &CheckArgs, results: &[TestResult]) -> Value {
    let digest = component.id().digest.trim_start_matches("sha256:");
    let file = args.component.file.file_name().unwrap_or_default().to_string_lossy();
    let names = |passed: bool| {
        let of_result = results.iter().filter(|result| result.passed == passed);
        of_result.map(TestResult::name).collect::<Vec<_>>()
    };
    let options = json!({
        "config": args.component.config,
        "topic": args.component.topic,
        "limits": args.component.limit,
        "samples": args.samples,
        "fuzz": args.fuzz,
    });
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": file, "digest": { "sha256": digest } }],
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": {
            "result": if names(false).is_empty() { "PASSED" } else { "FAILED" },
            "configuration": [{
                "name": "ktables-conformance",
                "mediaType": "application/json",
                "content": BASE64.encode(options.to_string()),
                "annotations": { "ktables": env!("CARGO_PKG_VERSION"), "wit": SUPPORTED_VERSIONS },
            }],
            "passedTests": names(true),
            "warnedTests": [],
            "failedTests": names(false),
        },
    })
}
