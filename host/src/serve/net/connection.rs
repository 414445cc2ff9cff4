//! Accepts connections, within limits, and serves both versions of HTTP on them.

use std::convert::Infallible;
use std::future::pending;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};
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
    /// Whether all connections end after the requests that they have begun.
    closing: watch::Sender<bool>,
}

impl Connections {
    pub(in crate::serve) fn new(settings: &Settings) -> Self {
        Self {
            total: Arc::new(Semaphore::new(settings.max_connections)),
            by_address: Shares::new(settings.max_connections_per_address),
            refused: AtomicU64::new(0),
            closing: watch::channel(false).0,
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

    /// Ends all connections after the requests that they have begun, and waits until they have ended.
    pub(in crate::serve) async fn close(&self) {
        self.closing.send_replace(true);
        // OK to ignore an error: the semaphore is never closed.
        let _ = self.total.acquire_many(self.settings.max_connections as u32).await;
    }

    /// Counts a connection that is refused, and logs the first one, and then every thousandth.
    fn refuse(&self, reason: &str) {
        let before = self.refused.fetch_add(1, Ordering::Relaxed);
        if before.is_multiple_of(1_000) {
            tracing::warn!("refused a connection: {reason} ({} refused so far)", before + 1);
        }
    }
}

/// Accepts connections until this is dropped. Each connection has its own task.
pub(in crate::serve) async fn serve_listener(
    listener: Listener,
    tls: Option<TlsState>,
    router: Router,
    connections: Arc<Connections>,
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
        let (tls, peer, router) = (tls.clone(), Peer::new(address), router.clone());
        let connections = connections.clone();
        tokio::spawn(async move {
            // Held until the connection ends.
            let _in_use = (permit, share);
            // Boxed, so that a connection takes no memory for what another kind needs.
            match (accepted, tls) {
                (Accepted::Tcp(stream, _), Some(tls)) => {
                    Box::pin(serve_tls(stream, tls, peer, router, &connections)).await;
                }
                (Accepted::Tcp(stream, _), None) => {
                    Box::pin(serve_plain(stream, peer, router, &connections)).await;
                }
                // Connections on this machine need no TLS.
                (Accepted::Unix(stream), _) => {
                    Box::pin(serve_plain(stream, peer, router, &connections)).await;
                }
            }
        });
    }
}

async fn serve_plain<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Peer,
    router: Router,
    connections: &Connections,
) {
    let Settings { header_timeout, stalled_timeout, .. } = connections.settings;
    let stream = Watched::new(stream, header_timeout, stalled_timeout);
    serve_http(stream, peer, router, connections).await;
}

async fn serve_tls(
    stream: TcpStream,
    tls: TlsState,
    mut peer: Peer,
    router: Router,
    connections: &Connections,
) {
    let Settings { header_timeout, stalled_timeout, .. } = connections.settings;
    let stream = Watched::new(stream, header_timeout, stalled_timeout);
    let handshake = TlsAcceptor::from(tls.load_full()).accept(stream);
    let mut closing = connections.closing.subscribe();
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(header_timeout, Box::pin(handshake)) => accepted,
        _ = closing.wait_for(|&is_closing| is_closing) => return,
    };
    match accepted {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates();
            peer.certificate = certificates
                .and_then(|chain| chain.first())
                .map(|certificate| certificate.clone().into_owned());
            // The bytes of the handshake were not yet those of a request.
            let stream = Watched::new(stream, header_timeout, stalled_timeout);
            serve_http(stream, peer, router, connections).await;
        }
        Ok(Err(error)) => tracing::debug!("a TLS handshake failed: {error}"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// Serves a connection with the version of HTTP that its client speaks, until it ends.
async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut stream: Watched<S>,
    peer: Peer,
    router: Router,
    connections: &Connections,
) {
    let mut closing = connections.closing.subscribe();
    let is_http2 = tokio::select! {
        is_http2 = stream.is_http2() => is_http2,
        _ = closing.wait_for(|&is_closing| is_closing) => return,
    };
    let (peer, stream) = (Arc::new(peer), TokioIo::new(stream));
    let service = service(&peer, router);
    // Boxed, so that one takes no memory for the other.
    match is_http2 {
        Ok(false) => {
            let connection = http1(&connections.settings).serve_connection(stream, service);
            let end = |connection: Pin<&mut _>| http1::Connection::graceful_shutdown(connection);
            // It has its own limit for the time until the next request.
            Box::pin(serve_until_end(connection, end, pending(), &peer, connections)).await;
        }
        Ok(true) => {
            let connection = http2(&connections.settings).serve_connection(stream, service);
            let end = |connection: Pin<&mut _>| http2::Connection::graceful_shutdown(connection);
            let idle = peer.wait_until_idle(connections.settings.header_timeout);
            Box::pin(serve_until_end(connection, end, idle, &peer, connections)).await;
        }
        Err(error) => tracing::debug!("a connection sent no request: {error}"),
    }
}

/// Passes the requests of a connection to the router.
fn service(
    peer: &Arc<Peer>,
    router: Router,
) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + use<> {
    let peer = peer.clone();
    service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request.map(Body::new))
    })
}

/// Serves a connection until it ends. It ends after the requests that it has begun if the server stops, or once it is idle.
async fn serve_until_end<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    end: impl Fn(Pin<&mut C>),
    idle: impl Future<Output = ()>,
    peer: &Peer,
    connections: &Connections,
) {
    let (mut connection, mut idle) = (pin!(connection), pin!(idle));
    let mut closing = connections.closing.subscribe();
    let timeout = connections.settings.stalled_timeout;
    // A client may not confirm the end. Until then, answers may still have to be sent.
    let mut ends_at = None;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                // An error is the client's: it went away, was too slow, or did not speak HTTP.
                if let Err(error) = ended {
                    tracing::debug!("a connection ended: {error}");
                }
                return;
            }
            () = peer.close.notified() => {
                return tracing::debug!("a connection was closed: its client takes nothing");
            }
            () = sleep_until(ends_at.unwrap_or_else(Instant::now)), if ends_at.is_some() => {
                if peer.is_idle() {
                    return tracing::debug!("a connection without a request was closed");
                }
            }
            _ = closing.wait_for(|&is_closing| is_closing), if ends_at.is_none() => end(connection.as_mut()),
            () = idle.as_mut(), if ends_at.is_none() => end(connection.as_mut()),
        }
        ends_at = Some(Instant::now() + timeout);
    }
}

fn http1(settings: &Settings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(settings.header_timeout).max_buf_size(HEAD_BYTES);
    builder
}

fn http2(settings: &Settings) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_send_buf_size(HTTP2_STREAM_BYTES)
        .max_header_list_size(HEAD_BYTES as u32)
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(settings.stalled_timeout);
    builder
}
