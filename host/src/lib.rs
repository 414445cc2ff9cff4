//! Kafka topics as in-memory, last-write-wins tables, decoded by sandboxed
//! WebAssembly components.
//!
//! A [`Table`](table::Table) materializes a topic of a [`Log`](log::Log): the
//! newest value of each key, in memory, readable at memory speed while it follows
//! the topic. The bytes in the topic are decoded by
//! [codecs](codec::Codecs), built in or [components](wasm::Component) that run
//! sandboxed. A [`Writer`](writer::Writer) maintains the topic through the same
//! codecs.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ktables::codec::{Codecs, Utf8};
//! use ktables::table::Table;
//! use ktables::wasm::{Compiler, Engine, EngineOptions, LoadOptions};
//!
//! // Components are compiled by this command, in a process of their own.
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
//! | feature | brings |
//! |---|---|
//! | `kafka` (default) | logs that are Kafka clusters: librdkafka |
//! | `wasm` (default) | components: wasmtime |
//! | `cli` (default) | the `ktables` command |
//!
//! Without them, the library has the directory log and the built-in codecs.

pub mod log;

pub mod checkpoint;

pub mod codec;

#[cfg(feature = "wasm")]
pub mod wasm;

pub mod table;

pub mod writer;

#[cfg(feature = "cli")]
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

pub use memory::set_process_limit;
pub use packed::{Packed, PackedOptions};

/// The README's Rust, compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
