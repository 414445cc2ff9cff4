//! Who is at the other end of a connection.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(in crate::serve) struct Peer {
    /// `None` for a Unix socket.
    pub(in crate::serve) address: Option<IpAddr>,
    /// The certificate of the client, which was verified.
    pub(in crate::serve) certificate: Option<CertificateDer<'static>>,
    /// Notified to close the connection.
    pub(in crate::serve) close: Notify,
}
