//! The formats of exported files.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::args::ExportFormat;
use crate::table::{Entry, Snapshot};
use crate::wire::EntryJson;

/// The keys that do not fit the format, with the reason, and were left out.
pub(super) type LeftOut = Vec<(String, &'static str)>;

/// Targets for Prometheus' `file_sd_configs`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetGroup {
    targets: Vec<String>,
    #[serde(default)]
    labels: Map<String, Value>,
}

/// Writes the entries of a table. Returns the keys that were left out.
pub(super) fn write_entries(
    snapshot: &Snapshot,
    format: ExportFormat,
    out: &mut impl Write,
) -> io::Result<LeftOut> {
    match format {
        ExportFormat::Object => write_object(snapshot, out).map(|()| LeftOut::new()),
        ExportFormat::Ndjson => {
            for entry in snapshot {
                let line = EntryJson::new(entry).with_notice(snapshot.notice(entry.key()));
                serde_json::to_writer(&mut *out, &line)?;
                out.write_all(b"\n")?;
            }
            Ok(LeftOut::new())
        }
        ExportFormat::PrometheusSd => write_targets(snapshot, out),
        ExportFormat::Env => write_env(snapshot, out),
    }
}

fn write_object(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"{")?;
    for (index, entry) in snapshot.iter().enumerate() {
        out.write_all(if index == 0 { b"\n  " } else { b",\n  " })?;
        serde_json::to_writer(&mut *out, entry.key())?;
        write!(out, ": {}", entry.json())?;
    }
    out.write_all(if snapshot.is_empty() { b"}\n" } else { b"\n}\n" })
}

fn write_targets(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<LeftOut> {
    let (mut groups, mut left_out) = (Vec::new(), LeftOut::new());
    for entry in snapshot {
        match entry.parse::<TargetGroup>() {
            Ok(group) if group.labels.values().all(Value::is_string) => groups.push(group),
            Ok(_) => left_out.push((entry.key().to_owned(), "a label is not a string")),
            Err(_) => left_out.push((entry.key().to_owned(), "its value is not an object with `targets`")),
        }
    }
    serde_json::to_writer_pretty(&mut *out, &groups)?;
    out.write_all(b"\n")?;
    Ok(left_out)
}

fn write_env(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<LeftOut> {
    let mut left_out = LeftOut::new();
    for entry in snapshot {
        let key = entry.key();
        let text = text_of(entry);
        if !is_name(key) {
            left_out.push((key.to_owned(), "it is not a name: letters, digits and `_`, and no digit first"));
        } else if text.contains('\0') {
            left_out.push((key.to_owned(), "its value has a NUL, which no variable can have"));
        } else {
            // In single quotes, a shell takes everything but a single quote as it is.
            writeln!(out, "{key}='{}'", text.replace('\'', "'\\''"))?;
        }
    }
    Ok(left_out)
}

/// Returns a string without its quotes, and any other value as JSON.
fn text_of(entry: &Entry) -> String {
    entry.parse::<String>().unwrap_or_else(|_| entry.json().to_owned())
}

fn is_name(key: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    key.bytes().next().is_some_and(is_letter)
        && key.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}
