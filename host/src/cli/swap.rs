//! The command `swap`, which swaps the codecs of a table of a running server.

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::cli::args::SwapArgs;
use crate::cli::output::Output;
use crate::cli::remote::Remote;
use crate::cli::{CliError, Exit, StopRequests};
use crate::file::{FileError, read_bounded};

/// How often the report is requested while the swap runs.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long the name of a component may be.
const MAX_NAME_BYTES: usize = 64;

/// The largest component that is sent, in bytes.
const MAX_COMPONENT_BYTES: usize = 256 << 20;

pub(super) async fn swap(
    args: SwapArgs,
    output: Output,
    mut stop_requests: StopRequests,
) -> Result<Exit, CliError> {
    let remote = Remote::new(&args.server, Duration::ZERO)?;
    let table = &*args.table;
    if args.back {
        let request = remote.request(Method::POST, &["v1", "tables", table, "swap", "back"]);
        output.print_object(&remote.send(request).await?)?;
        return Ok(Exit::Done);
    }
    let (part, codec) = match (&args.value_codec, &args.key_codec, &args.group_scheme) {
        (Some(codec), ..) => ("value", codec),
        (_, Some(codec), _) => ("key", codec),
        (.., Some(codec)) => ("group", codec),
        _ => {
            return Err(CliError::Usage(
                "swap to which codec? Name it with --value-codec, --key-codec or --group-scheme, or go back with --back"
                    .to_owned(),
            ));
        }
    };
    let mut query = vec![
        ("dry_run", args.dry_run.to_string()),
        ("max_new_rejects", args.max_new_rejects.to_string()),
        ("yes", args.yes.to_string()),
    ];
    query.extend(args.max_changed.map(|keys| ("max_changed", keys.to_string())));
    let query = query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
    begin(&remote, table, part, codec, query).await?;
    let report = tokio::select! {
        report = wait_until_ended(&remote, table) => report?,
        Ok(_) = stop_requests.wait_for(|&requests| requests > 0) => {
            let reason = format!(
                "interrupted: the server goes on with the swap, which `ktables swap {table} --back` reverses once it is done"
            );
            return Err(CliError::Server(reason));
        }
    };
    let state = report["state"].as_str().unwrap_or_default().to_owned();
    output.print_object(&report)?;
    Ok(match &*state {
        "done" | "tried" => Exit::Done,
        "refused" => Exit::No,
        _ => {
            let reason = report["reason"].as_str().unwrap_or(&state);
            return Err(CliError::Server(format!("the swap has failed: {reason}")));
        }
    })
}

/// Asks a server to begin a swap. `query` has the other parameters.
async fn begin(
    remote: &Remote,
    table: &str,
    part: &str,
    codec: &str,
    mut query: String,
) -> Result<(), CliError> {
    let is_file = Path::new(codec).extension().is_some_and(|extension| extension == "wasm");
    if !is_file && codec.contains('/') {
        let reason = format!("`{codec}` is not a codec: the name of a component file must end with .wasm");
        return Err(CliError::Usage(reason));
    }
    if is_file {
        query.push_str(&format!("&codec={part}"));
        query.push_str(&format!("&name={}", component_name(codec)));
    }
    let request = remote.request_with_query(Method::POST, &["v1", "tables", table, "swap"], &query);
    let request = if is_file {
        let path = Path::new(codec);
        let bytes = read_bounded(path, MAX_COMPONENT_BYTES)
            .map_err(FileError::of::<CliError>("read the component", path))?;
        request.header(CONTENT_TYPE, "application/wasm").body(bytes)
    } else {
        request.header(CONTENT_TYPE, "application/json").body(json!({ part: codec }).to_string())
    };
    remote.send(request).await?;
    Ok(())
}

/// Returns the name of a component in the logs and metrics of the server: that of its file.
fn component_name(file: &str) -> String {
    let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    stem.chars().map(|c| if is_plain(c) { c } else { '_' }).take(MAX_NAME_BYTES).collect()
}

/// Waits until a swap has ended, and returns its report.
async fn wait_until_ended(remote: &Remote, table: &str) -> Result<Value, CliError> {
    loop {
        let report = remote.send(remote.request(Method::GET, &["v1", "tables", table, "swap"])).await?;
        if !matches!(report["state"].as_str(), Some("loading" | "comparing" | "committing")) {
            return Ok(report);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
