//! The command `codec test`, which compares the answers of a component with vectors.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::authors::vectors::{self, Vector};
use crate::cli::args::TestArgs;
use crate::cli::codec::load;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit};
use crate::file::{FileError, Replacement, read_text};

/// The largest file with vectors, in bytes.
const MAX_VECTORS_BYTES: usize = 64 << 20;

/// What `codec test` prints in the end.
#[derive(Serialize)]
struct Summary {
    passed: usize,
    failed: usize,
}

pub(super) async fn test(args: TestArgs, output: Output) -> Result<Exit, CliError> {
    tokio::task::spawn_blocking(move || test_blocking(&args, output)).await?
}

fn test_blocking(args: &TestArgs, output: Output) -> Result<Exit, CliError> {
    let mut vectors = read_vectors(&args.vectors)?;
    if vectors.is_empty() {
        return Err(usage(&args.vectors, "it has no vectors"));
    }
    let component = load(&args.component)?;
    let kinds = component.codec_kinds();
    if let Some((line, vector)) = vectors.iter().find(|(_, vector)| !kinds.contains(&vector.kind())) {
        let reason = format!("line {line}: the component has no codec of the kind {:?}", vector.kind());
        return Err(usage(&args.vectors, &reason.to_lowercase()));
    }
    let (mut passed, mut failed) = (0, Vec::new());
    for kind in kinds {
        let codec = component.direct_codec(kind, None, &args.component.topic, &args.component.config)?;
        if args.bless {
            vectors::bless(&mut vectors, &codec, kind)?.map_err(|reason| usage(&args.vectors, &reason))?;
        }
        let compared = vectors::compare(&vectors, &codec, kind)?;
        let (matched, mismatches) = compared.map_err(|reason| usage(&args.vectors, &reason))?;
        passed += matched;
        failed.extend(mismatches);
    }
    if args.bless {
        write_vectors(&args.vectors, &vectors)?;
    }
    let summary = Summary { passed, failed: failed.len() };
    output.print_rows(&failed)?;
    output.print_object(&summary)?;
    Ok(if failed.is_empty() { Exit::Done } else { Exit::No })
}

/// Reads a file with vectors.
pub(super) fn read_vectors(path: &Path) -> Result<Vec<(usize, Vector)>, CliError> {
    let text = read_text(path, MAX_VECTORS_BYTES).map_err(FileError::of::<CliError>("read", path))?;
    vectors::parse(&text).map_err(|reason| usage(path, &reason))
}

fn write_vectors(path: &Path, vectors: &[(usize, Vector)]) -> Result<(), CliError> {
    let text = vectors::to_text(vectors).map_err(|error| usage(path, &error.to_string()))?;
    let write = || {
        let mut out = Replacement::new(path)?;
        out.write_all(text.as_bytes())?;
        out.persist()
    };
    write().map_err(FileError::of::<CliError>("write", path))
}

fn usage(path: &Path, reason: &str) -> CliError {
    CliError::Usage(format!("{}: {reason}", path.display()))
}
