//! A server that a command talks to, and the tables of it.

mod client;
mod import;
mod problem;
mod read;
mod table;
mod watch;
mod write;

pub(super) use client::Remote;
pub(super) use import::{LineError, RemoteSink};
pub(super) use read::{dump, get, groups, keys, members, rejects, status};
pub(super) use table::RemoteTable;
pub(super) use watch::watch;
