//! The command `codec bench`.

use std::path::Path;
use std::time::Instant;

use crate::authors::{Cost, Measured, measure, noop_component};
use crate::cli::args::{BenchArgs, ComponentArgs};
use crate::cli::codec::{engine_options, read_component};
use crate::cli::limits::parse_limits;
use crate::cli::output::Output;
use crate::cli::samples::{Sample, read_samples};
use crate::cli::{CliError, Exit};
use crate::wasm::{CodecKind, Component, Engine, EngineOptions, LoadOptions, Metering, Request};

pub(super) async fn bench(args: BenchArgs, output: Output) -> Result<Exit, CliError> {
    let mut samples = Vec::new();
    for place in &args.samples {
        samples.extend(read_samples(place).await?);
    }
    tokio::task::spawn_blocking(move || bench_blocking(&args, samples, output)).await?
}

fn bench_blocking(args: &BenchArgs, samples: Vec<Sample>, output: Output) -> Result<Exit, CliError> {
    let files = std::iter::once(&args.component.file).chain(&args.diff);
    let mut requests: Option<(CodecKind, Vec<Request>)> = None;
    let mut measured = Vec::new();
    for file in files {
        let bytes = read_component(file)?;
        let loaded = load(&args.component, file, &bytes, Metering::Deadline)?;
        let (component, _) = &loaded;
        let (kind, requests) = match &requests {
            Some(known) => known,
            None => requests.insert(choose(args, component, &samples)?),
        };
        let mut one = prepare(&args.component, file, bytes.len(), &loaded, *kind, requests)?;
        let (with_fuel, _) = load(&args.component, file, &bytes, Metering::Fuel)?;
        one.measure_fuel(&with_fuel, &args.component.config)?;
        measured.push(one);
    }
    let noop = noop_component();
    let file = Path::new("no-op.wasm");
    let loaded = load(&args.component, file, &noop, Metering::Deadline)?;
    let without_config = ComponentArgs { config: "{}".to_owned(), ..args.component.clone() };
    let samples = measured[0].noop_samples()?;
    measured.push(prepare(&without_config, file, noop.len(), &loaded, CodecKind::Value, &samples)?);
    let costs: Vec<Cost> = measure(&mut measured)?;
    output.print_rows(&costs)?;
    Ok(Exit::Done)
}

/// Loads a component without a cache. Returns it, and how long that took.
fn load(
    args: &ComponentArgs,
    file: &Path,
    bytes: &[u8],
    metering: Metering,
) -> Result<(Component, std::time::Duration), CliError> {
    let options = EngineOptions { cache: None, metering, ..engine_options() };
    let limits = parse_limits("--limit", &args.limit)?.limits();
    let engine = Engine::new(options)?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let started = Instant::now();
    let component =
        engine.load_bytes(&name, bytes.to_vec(), LoadOptions { limits, ..LoadOptions::default() })?;
    Ok((component, started.elapsed()))
}

/// Returns the kind of codec to measure, and the samples for it.
fn choose(
    args: &BenchArgs,
    component: &Component,
    samples: &[Sample],
) -> Result<(CodecKind, Vec<Request>), CliError> {
    let kinds = component.codec_kinds();
    let kind = args.kind.or_else(|| kinds.first().copied()).unwrap_or(CodecKind::Value);
    let requests = samples.iter().flat_map(|sample| sample.requests(&kinds));
    let requests = requests.filter(|(own, _)| *own == kind).map(|(_, request)| request).collect();
    Ok((kind, requests))
}

fn prepare(
    args: &ComponentArgs,
    file: &Path,
    bytes: usize,
    (component, compile): &(Component, std::time::Duration),
    kind: CodecKind,
    samples: &[Request],
) -> Result<Measured, CliError> {
    let codec = component.direct_codec(kind, None, &args.topic, &args.config)?;
    let name = file.display().to_string();
    let measured = Measured::new(&name, bytes, *compile, codec, kind, samples)?;
    measured.ok_or_else(|| {
        CliError::Usage(format!(
            "{name} accepts none of the samples: give it some of its format with --samples"
        ))
    })
}
