//! The commands `config check`, `config show` and `config schema`.

use schemars::transform::transform_subschemas;
use schemars::{Schema, json_schema};
use serde::Serialize;

use crate::cli::args::{CheckConfigArgs, ShowConfigArgs};
use crate::cli::output::Output;
use crate::cli::{CliError, Exit, codec};
use crate::config::Config;
use crate::serve::check as check_config;

/// The result of a check, as it is printed.
#[derive(Debug, Serialize)]
struct CheckJson {
    tables: usize,
    problems: usize,
}

pub(super) async fn check(args: CheckConfigArgs, output: Output) -> Result<Exit, CliError> {
    let (path, engine) = (args.file.config, codec::engine_options());
    // Compiling a component blocks.
    let checked = tokio::task::spawn_blocking(move || check_config(&path, engine, args.insecure)).await??;
    for problem in &checked.problems {
        tracing::error!("{problem}");
    }
    let problems = checked.problems.len();
    output.print_object(&CheckJson { tables: checked.tables, problems })?;
    if problems > 0 {
        return Err(CliError::Usage(format!("problems of the configuration: {problems}")));
    }
    Ok(Exit::Done)
}

pub(super) fn show(args: &ShowConfigArgs, output: Output) -> Result<Exit, CliError> {
    let shown = Config::show(&args.file.config)?;
    output.print_line(shown.trim_end())?;
    for reason in Config::read(&args.file.config)?.unusable() {
        tracing::warn!("{reason}: the section is not shown");
    }
    Ok(Exit::Done)
}

/// Accepts `${NAME}` and `${file:PATH}` in place of a choice or of a number.
fn accept_references(schema: &mut Schema) {
    let has_constants = |choices: &serde_json::Value| {
        choices.as_array().is_some_and(|choices| choices.iter().all(|choice| choice.get("const").is_some()))
    };
    let is_choice = schema.get("enum").is_some() || schema.get("oneOf").is_some_and(has_constants);
    let is_number = schema.get("type").is_some_and(|kind| kind == "integer" || kind == "boolean");
    if is_choice || is_number {
        let own = std::mem::take(schema);
        *schema = json_schema!({ "anyOf": [own, { "type": "string", "pattern": r"\$\{" }] });
    } else {
        transform_subschemas(&mut accept_references, schema);
    }
}

pub(super) fn schema(output: Output) -> Result<Exit, CliError> {
    let mut schema = schemars::schema_for!(Config);
    accept_references(&mut schema);
    // OK because a schema always serializes.
    output.print_line(&serde_json::to_string_pretty(&schema).expect("serializes"))?;
    Ok(Exit::Done)
}
