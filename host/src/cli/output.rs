//! Answers: JSON for programs, tables for people.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use comfy_table::{ContentArrangement, Table as TextTable, presets};
use rustix::event::{PollFd, PollFlags, poll};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::cli::args::Format;
use crate::escape::{json_for_terminal, one_line};
use crate::table::{Entry, RejectNotice};

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
    timestamp: Option<i64>,
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
    pub(super) fn new(notice: &'a RejectNotice) -> Self {
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
    pub(super) fn rejected(self, notice: Option<&'a RejectNotice>) -> Self {
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

    /// Where answers go.
    pub(super) fn writer(self) -> Out {
        Out::new()
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
        for (name, value) in members(value)?.into_iter().filter(|(_, value)| value.get() != "null") {
            let cell = cell(&name, &value);
            table.add_row([name, cell]);
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
            let members = members(&row)?;
            if table.header().is_none() {
                table.set_header(members.iter().map(|(name, _)| name));
            }
            table.add_row(members.iter().map(|(name, value)| cell(name, value)));
        }
        if table.is_empty() { Ok(()) } else { self.line(&table.to_string()) }
    }
}

/// The members of an object, each with its JSON text as it is: a number is not made a machine's
/// number, nor a text a string.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
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
        deserializer.deserialize_map(InOrder)
    }
}

fn members(value: &impl Serialize) -> serde_json::Result<Vec<(String, Box<RawValue>)>> {
    let Members(members) = serde_json::from_str(&serde_json::to_string(value)?)?;
    Ok(members)
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

/// The members that hold a table's own JSON, which is shown as it is stored.
const STORED: [&str; 3] = ["value", "old", "new"];

fn cell(name: &str, value: &RawValue) -> String {
    let json = value.get();
    // A text of ours is shown without quotes.
    let text = if STORED.contains(&name) { None } else { serde_json::from_str::<String>(json).ok() };
    match text {
        Some(text) => one_line(&text).to_string(),
        None => json_for_terminal(json).into_owned(),
    }
}

/// Standard output. On a terminal, what could act on it is escaped. When nobody reads any more,
/// what is written is lost, and nothing else changes.
pub(super) struct Out {
    out: BufWriter<Stdout>,
    /// The line that is not complete; `None` if standard output is no terminal.
    line: Option<Vec<u8>>,
    is_closed: bool,
}

impl Out {
    fn new() -> Self {
        let line = io::stdout().is_terminal().then(Vec::new);
        Self { out: BufWriter::new(io::stdout()), line, is_closed: false }
    }

    /// Notes that nobody reads any more.
    fn unless_closed(&mut self, written: io::Result<()>) -> io::Result<()> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            written => written,
        }
    }
}

impl Write for Out {
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
        self.unless_closed(written).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_closed {
            return Ok(());
        }
        let flushed = self.out.flush();
        self.unless_closed(flushed)
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        // What is left was given up with an error, or nobody reads it: it must not be tried again.
        let out = std::mem::replace(&mut self.out, BufWriter::with_capacity(0, io::stdout()));
        let _ = out.into_parts();
    }
}

/// Resolves when nobody reads standard output any more.
pub(super) async fn stdout_closed() {
    let (closed, told) = tokio::sync::oneshot::channel();
    let wait = move || {
        let stdout = io::stdout();
        loop {
            // Errors are told in any case, and nothing else is waited for.
            let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
            match poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
                Ok(_) if polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => break,
                Ok(_) => return,
            }
        }
        // The command may be over.
        let _ = closed.send(());
    };
    // Without the thread it shows with the next line.
    let thread = crate::thread::spawn("ktables-stdout", wait);
    if thread.is_err() || told.await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_they_are_stored() {
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
            let members = members(&Line { key: "a\u{1b}", value: raw(json) }).unwrap();
            let cells: Vec<String> = members.iter().map(|(name, value)| cell(name, value)).collect();
            assert_eq!(cells, ["a\\u001b", json]);
        }
    }
}
