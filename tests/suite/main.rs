//! The project's tests. Each module tests one area.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod access;
mod architecture;
mod authors;
mod bundled_codecs;
mod checkpoints;
mod cli;
mod cluster;
mod codec_registries;
mod codecs;
mod configs;
mod dead_letters;
mod expiry;
mod exports;
mod faults;
mod files;
mod generations;
mod imports;
mod interop;
mod kafka_refusals;
mod languages;
mod loading;
mod log;
mod memory;
mod model;
mod neighbours;
mod output;
mod parity;
mod poison;
mod processes;
mod public_api;
mod public_data;
mod readme;
mod rejects;
mod resuming;
mod rules;
mod scale;
mod schema_codecs;
mod schemas;
mod serving;
mod table;
mod topics;
mod wasi;
mod watching;
mod writing;
