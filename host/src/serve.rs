//! A server of tables: HTTP, access control, and the life of the process.
//!
//! It holds no contents itself: [`Table`](crate::table::Table) does. Whatever a client sends is hostile until it was
//! checked, bounded in bytes, and has a deadline.

mod access;
mod access_file;
mod check;
mod error;
mod fleet;
mod http;
mod http_metrics;
mod missing_codecs;
mod net;
mod network;
mod problem;
mod reload;
mod revocations;
mod run;
mod server;
mod settings;
mod shares;
mod swap;
mod swaps;
mod systemd;
mod tables;

pub(crate) use access::NewToken;
pub(crate) use check::check;
pub(crate) use error::ServeError;
pub(crate) use run::{ServeOptions, run};
