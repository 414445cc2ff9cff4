//! Kafka topics as in-memory, last-write-wins tables, decoded by sandboxed WebAssembly components.
//!
//! A [`Table`](table::Table) materializes a topic of a [`Log`](log::Log): it follows the topic, and keeps the
//! newest value of each key in memory. [Codecs](codec::Codecs) decode the bytes in the topic: built-in ones,
//! or [components](wasm::Component) that run in a sandbox. A [`Writer`](writer::Writer) writes to the topic
//! with the same codecs.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ktables::codec::{Codecs, Utf8};
//! use ktables::table::Table;
//! use ktables::wasm::{Compiler, Engine, EngineOptions, LoadOptions};
//!
//! // This command compiles components, in a separate process.
//! let compiler = Compiler::Command("/usr/local/bin/ktables".into());
//! let engine = Engine::new(EngineOptions::new(compiler))?;
//! let component = engine.load("service.wasm", LoadOptions::default())?;
//! let codecs = Codecs { value: component.value_codec("services", "{}")?, ..Codecs::default() };
//!
//! let log = ktables::log::open("dir:./data")?;
//! let table = Table::builder(log, "services", codecs).start().await?;
//! for entry in table.snapshot().prefix("billing/") {
//!     println!("{} = {}", entry.key(), entry.json());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `kafka` (default) | Kafka clusters as logs, with librdkafka |
//! | `wasm` (default) | WebAssembly components as codecs, with wasmtime |
//! | `cli` | the `ktables` command |
//!
//! Without these features, the library has the directory log and the built-in codecs.

pub mod log;

pub mod checkpoint;

pub mod codec;

#[cfg(feature = "wasm")]
pub mod wasm;

pub mod table;

pub mod writer;

#[cfg(feature = "wasm")]
mod registry;

#[cfg(feature = "cli")]
mod oci;

#[cfg(feature = "cli")]
mod config;

#[cfg(feature = "cli")]
mod wire;

#[cfg(feature = "cli")]
mod authors;

#[cfg(feature = "cli")]
mod serve;

// For the command only.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

#[cfg(any(feature = "fuzzing", all(test, feature = "cli")))]
#[doc(hidden)]
pub mod fuzzing;

mod escape;
mod file;
mod memory;
mod packed;
mod private;
mod sync;
mod thread;
mod time;

pub use file::FileError;
pub use memory::set_process_memory_limit;
pub use packed::Packed;

/// Compiles the Rust code of the README as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
