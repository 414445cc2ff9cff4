//! Accepts connections, within limits, and serves both versions of HTTP on them.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::listener::{Accepted, Listener};
use super::peer::Peer;
use super::stalled::Watched;
use super::tls::TlsState;
use crate::serve::network::network;
use crate::serve::settings::Settings;
use crate::serve::shares::Shares;

/// How many bytes the head of a request may have, and how many bytes of an answer a connection buffers.
const HEAD_BYTES: usize = 128 << 10;

/// The maximum number of open streams of an HTTP/2 connection, and of bytes that each of them buffers.
const HTTP2_STREAMS: u32 = 128;
const HTTP2_STREAM_BYTES: usize = 64 << 10;

/// How often a connection of HTTP/2 is asked whether its other end is still there.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);

/// What the connections of all listeners share.
#[derive(Debug)]
pub(in crate::serve) struct Connections {
    settings: Settings,
    total: Arc<Semaphore>,
    by_address: Shares<IpAddr>,
    /// How many connections were refused because there were too many.
    refused: AtomicU64,
}

impl Connections {
    pub(in crate::serve) fn new(settings: &Settings) -> Self {
        Self {
            total: Arc::new(Semaphore::new(settings.max_connections)),
            by_address: Shares::new(settings.max_connections_per_address),
            refused: AtomicU64::new(0),
            settings: settings.clone(),
        }
    }

    /// The number of open connections.
    pub(in crate::serve) fn open(&self) -> usize {
        self.settings.max_connections - self.total.available_permits()
    }

    /// The number of connections that were refused because there were too many.
    pub(in crate::serve) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts a connection that is refused, and logs the first one, and then every thousandth.
    fn refuse(&self, reason: &str) {
        let before = self.refused.fetch_add(1, Ordering::Relaxed);
        if before.is_multiple_of(1_000) {
            tracing::warn!("refused a connection: {reason} ({} refused so far)", before + 1);
        }
    }
}

/// Accepts connections until this is dropped. Each connection has its own task, which `graceful` can ask to end after
/// the requests that it has begun.
pub(in crate::serve) async fn serve_listener(
    listener: Listener,
    tls: Option<TlsState>,
    router: Router,
    connections: Arc<Connections>,
    graceful: Arc<GracefulShutdown>,
) {
    loop {
        let accepted = listener.accept().await;
        let Ok(permit) = connections.total.clone().try_acquire_owned() else {
            connections.refuse("server.max_connections are open");
            continue;
        };
        let address = match &accepted {
            Accepted::Tcp(_, address) => Some(address.to_canonical()),
            Accepted::Unix(_) => None,
        };
        let share = address.map(|address| connections.by_address.take(&network(address)));
        if matches!(share, Some(None)) {
            connections.refuse("server.max_connections_per_address are open from one address");
            continue;
        }
        let (tls, router) = (tls.clone(), router.clone());
        let (settings, graceful) = (connections.settings.clone(), graceful.watcher());
        tokio::spawn(async move {
            // Held until the connection ends.
            let _in_use = (permit, share);
            let peer = Peer { address, certificate: None, close: Notify::new() };
            match accepted {
                Accepted::Tcp(stream, _) => {
                    serve_stream(stream, tls, peer, router, &settings, graceful).await
                }
                // Connections on this machine need no TLS.
                Accepted::Unix(stream) => serve_stream(stream, None, peer, router, &settings, graceful).await,
            }
        });
    }
}

/// Serves a connection until it ends.
async fn serve_stream<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    tls: Option<TlsState>,
    mut peer: Peer,
    router: Router,
    settings: &Settings,
    graceful: Watcher,
) {
    let stream = Watched::new(stream, settings.header_timeout, settings.stalled_timeout);
    let Some(tls) = tls else {
        return serve_http(stream, peer, router, settings, graceful).await;
    };
    let handshake = TlsAcceptor::from(tls.load_full()).accept(stream);
    match tokio::time::timeout(settings.header_timeout, handshake).await {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates();
            peer.certificate = certificates
                .and_then(|chain| chain.first())
                .map(|certificate| certificate.clone().into_owned());
            // The bytes of the handshake were not yet those of a request.
            let stream = Watched::new(stream, settings.header_timeout, settings.stalled_timeout);
            serve_http(stream, peer, router, settings, graceful).await;
        }
        Ok(Err(error)) => tracing::debug!("a TLS handshake failed: {error}"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Peer,
    router: Router,
    settings: &Settings,
    graceful: Watcher,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_send_buf_size(HTTP2_STREAM_BYTES)
        .max_header_list_size(HEAD_BYTES as u32)
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(settings.stalled_timeout);
    let peer = Arc::new(peer);
    let close = peer.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let router = router.clone();
        async move {
            let response: Result<Response<Body>, Infallible> = router.oneshot(request.map(Body::new)).await;
            response
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    // An error is the client's: it went away, was too slow, or did not speak HTTP.
    tokio::select! {
        ended = graceful.watch(connection) => {
            if let Err(error) = ended {
                tracing::debug!("a connection ended: {error}");
            }
        }
        () = close.close.notified() => tracing::debug!("a connection was closed: its client takes nothing"),
    }
}
