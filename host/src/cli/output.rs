//! Prints the answers of commands: as JSON for programs, as tables for people.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use comfy_table::{ContentArrangement, Table as TextTable, presets};
use rustix::event::{PollFd, PollFlags, poll};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::cli::CliError;
use crate::cli::args::Format;
use crate::escape::{json_for_terminal, one_line};

/// Prints answers in one format.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    format: Format,
    /// Whether the user chose the format.
    is_chosen: bool,
}

impl Output {
    /// Creates an output. The default format is a table if standard output is a terminal, and JSON otherwise.
    pub(super) fn new(format: Option<Format>) -> Self {
        let default = if io::stdout().is_terminal() { Format::Table } else { Format::Json };
        Self { format: format.unwrap_or(default), is_chosen: format.is_some() }
    }

    /// Fails if the user chose tables, for a command that cannot print them.
    pub(super) fn require_json(self, command: &str) -> Result<(), CliError> {
        if self.is_chosen && !self.is_json() {
            let reason = format!("{command} prints JSON only: leave out --output table");
            return Err(CliError::Usage(reason));
        }
        Ok(())
    }

    pub(super) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Returns a writer to standard output.
    pub(super) fn writer(self) -> StdoutWriter {
        StdoutWriter::new()
    }

    /// Prints one line of text.
    pub(super) fn print_line(self, text: &str) -> io::Result<()> {
        let mut out = self.writer();
        writeln!(out, "{text}")?;
        out.flush()
    }

    /// Prints one JSON object, or a table with a row for each of its members that is not null.
    pub(super) fn print_object(self, value: &impl Serialize) -> io::Result<()> {
        if self.is_json() {
            let mut out = self.writer();
            write_json_line(&mut out, value)?;
            return out.flush();
        }
        let mut table = new_text_table();
        for (name, value) in object_members(value)?.into_iter().filter(|(_, value)| value.get() != "null") {
            let cell = format_cell(&name, &value);
            table.add_row([name, cell]);
        }
        self.print_table(&table)
    }

    /// Prints a table without the blanks at the ends of its lines.
    fn print_table(self, table: &TextTable) -> io::Result<()> {
        let mut out = self.writer();
        table.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))?;
        out.flush()
    }

    /// Prints one JSON object per line, or a table with a row for each object and a column for each member.
    pub(super) fn print_rows<T: Serialize>(self, rows: impl IntoIterator<Item = T>) -> io::Result<()> {
        if self.is_json() {
            let mut out = self.writer();
            rows.into_iter().try_for_each(|row| write_json_line(&mut out, &row))?;
            return out.flush();
        }
        // Rows may lack members, so the columns are known after the last row.
        let mut columns: Vec<String> = Vec::new();
        let mut cells: Vec<HashMap<String, String>> = Vec::new();
        for row in rows {
            let members = object_members(&row)?;
            let new = members.iter().map(|(name, _)| name).filter(|name| !columns.contains(name));
            columns.extend(new.cloned().collect::<Vec<_>>());
            cells.push(
                members
                    .into_iter()
                    .map(|(name, value)| {
                        let cell = format_cell(&name, &value);
                        (name, cell)
                    })
                    .collect(),
            );
        }
        let mut table = new_text_table();
        table.set_header(&columns);
        for mut row in cells {
            table.add_row(columns.iter().map(|name| row.remove(name).unwrap_or_default()));
        }
        if table.is_empty() { Ok(()) } else { self.print_table(&table) }
    }
}

/// The members of a JSON object, in order, each with its unchanged JSON text. Numbers and strings are not
/// converted to Rust types, which cannot hold all of them.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Serializes a value, and returns the members of the resulting object.
fn object_members(value: &impl Serialize) -> serde_json::Result<Vec<(String, Box<RawValue>)>> {
    let Members(members) = serde_json::from_str(&serde_json::to_string(value)?)?;
    Ok(members)
}

/// Writes a value as JSON on one line.
pub(super) fn write_json_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

fn new_text_table() -> TextTable {
    let mut table = TextTable::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// The members that hold the decoded JSON of a record, which is shown unchanged.
const STORED_MEMBERS: [&str; 3] = ["value", "old", "new"];

fn format_cell(name: &str, value: &RawValue) -> String {
    let json = value.get();
    // Strings that this command produced are shown without quotes.
    let text = if STORED_MEMBERS.contains(&name) { None } else { serde_json::from_str::<String>(json).ok() };
    match text {
        Some(text) => one_line(&text).to_string(),
        None => json_for_terminal(json).into_owned(),
    }
}

/// A writer to standard output. On a terminal, it escapes characters that the terminal would interpret. Once
/// the pipe is closed by its reader, it discards everything that is written, without an error.
pub(super) struct StdoutWriter {
    out: BufWriter<Stdout>,
    /// The incomplete last line; `None` if standard output is not a terminal.
    line: Option<Vec<u8>>,
    is_closed: bool,
}

impl StdoutWriter {
    fn new() -> Self {
        let line = io::stdout().is_terminal().then(Vec::new);
        Self { out: BufWriter::new(io::stdout()), line, is_closed: false }
    }

    /// Whether the reader of the pipe has closed it, so that something that was written is lost.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Turns a broken pipe into success, and remembers it.
    fn ignore_broken_pipe(&mut self, written: io::Result<()>) -> io::Result<()> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            written => written,
        }
    }
}

impl Write for StdoutWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_closed {
            return Ok(bytes.len());
        }
        let written = match &mut self.line {
            None => self.out.write_all(bytes),
            Some(line) => {
                line.extend(bytes);
                let end = line.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                let whole: Vec<u8> = line.drain(..end).collect();
                String::from_utf8_lossy(&whole)
                    .lines()
                    .try_for_each(|line| writeln!(self.out, "{}", json_for_terminal(line)))
            }
        };
        self.ignore_broken_pipe(written).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_closed {
            return Ok(());
        }
        let flushed = self.out.flush();
        self.ignore_broken_pipe(flushed)
    }
}

impl Drop for StdoutWriter {
    fn drop(&mut self) {
        // `BufWriter` would try again to write the rest when it is dropped. The rest is left only after an
        // error, because nobody reads it, or because it was not flushed.
        let out = std::mem::replace(&mut self.out, BufWriter::with_capacity(0, io::stdout()));
        let _ = out.into_parts();
    }
}

/// Waits until the reader of standard output has closed it.
pub(super) async fn wait_for_stdout_close() {
    let (sender, closed) = tokio::sync::oneshot::channel();
    let wait = move || {
        let stdout = io::stdout();
        loop {
            // `poll` always reports errors and hang-ups, so no event is requested.
            let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
            match poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
                Ok(_) if polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => break,
                Ok(_) => return,
            }
        }
        // OK to ignore: the command may have ended.
        let _ = sender.send(());
    };
    // Without the thread, the next write to standard output notices that it is closed.
    let thread = crate::thread::spawn("ktables-stdout", wait);
    if thread.is_err() || closed.await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_cells_show_stored_json_unchanged() {
        for json in [
            "123456789012345678901",
            "0.1000000000000000055511151231257827",
            "1e400",
            r#""\ud800""#,
            r#"{"a":1,"a":2}"#,
            r#""text""#,
        ] {
            #[derive(Serialize)]
            struct Line<'a> {
                key: &'a str,
                value: &'a RawValue,
            }
            let members =
                object_members(&Line { key: "a\u{1b}", value: serde_json::from_str(json).unwrap() }).unwrap();
            let cells: Vec<String> = members.iter().map(|(name, value)| format_cell(name, value)).collect();
            assert_eq!(cells, ["a\\u001b", json]);
        }
    }
}
