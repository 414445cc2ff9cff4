//! A program that embeds a table. It writes raw records to a log, loads them into a table through a
//! component, reads a typed value, and watches a change. STATUS_FILE is a list of Debian packages, as in
//! /var/lib/dpkg/status: stanzas of `Name: value` lines, separated by empty lines.
//!
//! ```text
//! embed dir:./data target/components/deb822.wasm examples/deb822/sample/status
//! embed kafka://localhost:9092 target/components/deb822.wasm examples/deb822/sample/status
//! ```

use std::error::Error;
use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use ktables::codec::{Codecs, Utf8};
use ktables::log::{Log, LogError, NewRecord, NewTopic};
use ktables::table::{Table, WatchEvent, WatchStart};
use ktables::wasm::{Compiler, Engine, EngineOptions, LoadOptions};
use ktables::writer::Writer;
use serde::Deserialize;

const TOPIC: &str = "packages";

/// The fields of a package that this program uses.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Package<'a> {
    package: &'a str,
    version: &'a str,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, component, source] = args.as_slice() else {
        return Err("usage: embed LOG COMPONENT.wasm STATUS_FILE".into());
    };
    let log = ktables::log::open(url)?;
    let written = write_stanzas(log.as_ref(), &std::fs::read_to_string(source)?).await?;
    writeln!(stdout(), "   wrote {written} stanzas of {source} to topic {TOPIC} in {url}")?;

    // A program needs one engine, which compiles each component once. `InProcess` is for trusted components,
    // such as those of this project. For other components, use `Compiler::Command`.
    let engine = Engine::new(EngineOptions::new(Compiler::InProcess))?;
    let component = engine.load(component, LoadOptions::default())?;
    let codecs = Codecs { value: component.value_codec(TOPIC, "{}")?, ..Codecs::new(Utf8, Utf8) };

    let start = Instant::now();
    let table = Table::builder(log.clone(), TOPIC, codecs.clone()).start().await?;
    let id = component.id();
    writeln!(
        stdout(),
        "   {} entries through {id} in {:.0?}, {}",
        table.len(),
        start.elapsed(),
        table.status()
    )?;

    // A read takes the value from memory, and parses it into any type.
    if let Some(entry) = table.get("shells/bash") {
        let package: Package<'_> = entry.parse()?;
        writeln!(stdout(), "   {} is at version {}", package.package, package.version)?;
    }

    // `set` returns when the record is durable. `wait_for` returns when the table has applied it.
    let mut watcher = table.watch(WatchStart::Now);
    let writer = Writer::open(log, TOPIC, codecs).await?;
    let ack = writer.set("demo/embed", r#"{"Package": "embed", "Version": "1.0"}"#).await?;
    let fresh = table.wait_for(&[ack], Duration::from_secs(10)).await;
    if let (true, Some(WatchEvent::Change(change))) = (fresh.is_fresh(), watcher.next().await) {
        writeln!(stdout(), "   watched {} change at offset {}", change.key(), change.offset)?;
    }
    table.stop().await;
    Ok(())
}

/// Writes each stanza as a record with the key SECTION/PACKAGE, and returns their number.
async fn write_stanzas(log: &dyn Log, packages: &str) -> Result<usize, Box<dyn Error>> {
    let topic = match log.create(TOPIC, NewTopic { partitions: Some(4), ..NewTopic::default() }).await {
        Err(LogError::TopicExists { .. }) => log.describe(TOPIC).await?,
        created => created?,
    };
    let field = |stanza: &str, name: &str| {
        let value =
            stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned));
        value.unwrap_or_else(|| "none".to_owned())
    };
    let mut deliveries = Vec::new();
    for stanza in packages.split("\n\n").filter(|stanza| !stanza.trim().is_empty()) {
        let key = format!("{}/{}", field(stanza, "Section"), field(stanza, "Package"));
        let value = Some(format!("{stanza}\n").into_bytes());
        let record = NewRecord { key: Some(key.into_bytes()), value, ..NewRecord::default() };
        deliveries.push(log.send(&topic, record).await?);
    }
    let written = deliveries.len();
    for delivery in deliveries {
        delivery.await?;
    }
    Ok(written)
}
