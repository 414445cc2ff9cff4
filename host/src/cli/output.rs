//! Answers: JSON for programs, tables for people.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use comfy_table::{ContentArrangement, Table as TextTable, presets};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::args::Format;
use crate::table::{Entry, Notice};

/// How answers look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    format: Format,
}

/// An entry as `dump` prints it.
#[derive(Debug, Serialize)]
pub(super) struct EntryLine<'a> {
    key: &'a str,
    value: &'a RawValue,
    partition: i32,
    offset: i64,
    timestamp: i64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    expired: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<NoticeLine<'a>>,
}

/// A newer record that was rejected.
#[derive(Debug, Serialize)]
pub(super) struct NoticeLine<'a> {
    partition: i32,
    offset: i64,
    kind: &'static str,
    message: &'a str,
}

impl<'a> NoticeLine<'a> {
    pub(super) fn new(notice: &'a Notice) -> Self {
        Self {
            partition: notice.partition,
            offset: notice.offset,
            kind: notice.kind.name(),
            message: &notice.message,
        }
    }
}

impl<'a> EntryLine<'a> {
    pub(super) fn new(entry: &'a Entry) -> Self {
        Self {
            key: entry.key(),
            value: raw(entry.json()),
            partition: entry.partition(),
            offset: entry.offset(),
            timestamp: entry.timestamp(),
            expired: false,
            rejected: None,
        }
    }

    /// With a newer record that was rejected, if there is one.
    pub(super) fn rejected(self, notice: Option<&'a Notice>) -> Self {
        Self { rejected: notice.map(NoticeLine::new), ..self }
    }

    /// Its time is over.
    pub(super) fn expired(self) -> Self {
        Self { expired: true, ..self }
    }
}

/// JSON text as it is.
pub(super) fn raw(json: &str) -> &RawValue {
    // OK because a table holds checked JSON only, and no blanks around it matter.
    serde_json::from_str(json).expect("checked JSON")
}

impl Output {
    pub(super) fn new(format: Option<Format>) -> Self {
        let default = if io::stdout().is_terminal() { Format::Table } else { Format::Json };
        Self { format: format.unwrap_or(default) }
    }

    pub(super) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Where answers of many lines go.
    pub(super) fn writer(self) -> BufWriter<Stdout> {
        BufWriter::new(io::stdout())
    }

    /// One line of text.
    pub(super) fn line(self, text: &str) -> io::Result<()> {
        let mut out = self.writer();
        writeln!(out, "{text}")?;
        out.flush()
    }

    /// One JSON object, or its members in two columns.
    pub(super) fn object(self, value: &impl Serialize) -> io::Result<()> {
        if self.is_json() {
            let mut out = self.writer();
            json_line(&mut out, value)?;
            return out.flush();
        }
        let mut table = text_table();
        if let serde_json::Value::Object(members) = serde_json::to_value(value)? {
            for (name, value) in members.into_iter().filter(|(_, value)| !value.is_null()) {
                table.add_row([name, cell(&value)]);
            }
        }
        self.line(&table.to_string())
    }

    /// Many JSON objects, a line each, or a table with a column for each member.
    pub(super) fn rows<T: Serialize>(self, rows: impl IntoIterator<Item = T>) -> io::Result<()> {
        if self.is_json() {
            let mut out = self.writer();
            rows.into_iter().try_for_each(|row| json_line(&mut out, &row))?;
            return out.flush();
        }
        let mut table = text_table();
        for row in rows {
            if let serde_json::Value::Object(members) = serde_json::to_value(row)? {
                if table.header().is_none() {
                    table.set_header(members.keys());
                }
                table.add_row(members.values().map(cell));
            }
        }
        if table.is_empty() { Ok(()) } else { self.line(&table.to_string()) }
    }
}

/// A JSON text on a line of its own.
pub(super) fn json_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

fn text_table() -> TextTable {
    let mut table = TextTable::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
