//! Connections: listening, TLS, limits, and the two versions of HTTP.

mod connection;
mod listener;
mod peer;
mod stalled;
mod tls;

pub(super) use connection::{Connections, serve_listener};
pub(crate) use listener::ListenError;
pub(super) use listener::Listener;
pub(super) use peer::Peer;
pub(super) use tls::TlsFiles;
