//! The client of a connection, and its open requests.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;

/// The client of a connection, and its open requests.
#[derive(Debug)]
pub(in crate::serve) struct Peer {
    /// `None` for a Unix socket.
    pub(in crate::serve) address: Option<IpAddr>,
    /// The certificate of the client, which was verified.
    pub(in crate::serve) certificate: Option<CertificateDer<'static>>,
    /// Notified to close the connection.
    pub(in crate::serve) close: Notify,
    /// How many requests have begun, and how many are open.
    begun: AtomicU64,
    open: AtomicU32,
}

/// A request of a connection, until its answer was given to the connection, which may still have to send it.
#[derive(Debug)]
pub(in crate::serve) struct OpenRequest(Arc<Peer>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}

impl Peer {
    pub(in crate::serve) fn new(address: Option<IpAddr>) -> Self {
        Self {
            address,
            certificate: None,
            close: Notify::new(),
            begun: AtomicU64::new(0),
            open: AtomicU32::new(0),
        }
    }

    /// Begins a request.
    pub(in crate::serve) fn begin(self: &Arc<Self>) -> OpenRequest {
        self.open.fetch_add(1, Ordering::Acquire);
        self.begun.fetch_add(1, Ordering::Release);
        OpenRequest(self.clone())
    }

    /// Whether no request is open.
    pub(super) fn is_idle(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    /// Waits until no request was open for this time, which may take twice as long.
    pub(super) async fn wait_until_idle(&self, time: Duration) {
        loop {
            let begun = self.begun.load(Ordering::Acquire);
            let was_idle = self.is_idle();
            tokio::time::sleep(time).await;
            if was_idle && self.begun.load(Ordering::Acquire) == begun {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_connection_is_idle_after_its_requests() {
        let peer = Arc::new(Peer::new(None));
        let request = peer.begin();
        let idle = peer.wait_until_idle(TIME);
        assert!(tokio::time::timeout(5 * TIME, idle).await.is_err(), "a request is open");
        drop(request);
        tokio::time::timeout(100 * TIME, peer.wait_until_idle(TIME)).await.unwrap();
    }
}
