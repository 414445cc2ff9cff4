//! The project's tests, an area a module.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod cli;
mod codecs;
mod log;
mod poison;
mod processes;
mod readme;
mod rules;
mod scale;
mod table;
