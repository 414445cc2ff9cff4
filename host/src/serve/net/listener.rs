//! Sockets that accept connections.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::ListenAddress;

/// How long to wait after accepting a connection has failed: the process may have no more files.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// An address on which the server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub(crate) struct ListenError {
    address: String,
    source: io::Error,
}

/// A socket that accepts connections.
#[derive(Debug)]
pub(in crate::serve) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, which is removed when this is dropped.
#[derive(Debug)]
pub(in crate::serve) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // OK to ignore: the next start replaces it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A connection that was accepted, and the address at its other end.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

impl Listener {
    pub(in crate::serve) async fn bind(address: &ListenAddress) -> Result<Self, ListenError> {
        let listener = match address {
            ListenAddress::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            ListenAddress::Unix(path) => bind_socket(path),
        };
        listener.map_err(|source| ListenError { address: address.to_string(), source })
    }

    /// The address that the system chose, if the port was 0.
    pub(in crate::serve) fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string())
            }
            Self::Unix(_, file) => format!("unix:{}", file.0.display()),
        }
    }

    /// Waits for a connection.
    pub(super) async fn accept(&self) -> Accepted {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => {
                    listener.accept().await.map(|(stream, from)| Accepted::Tcp(stream, from.ip()))
                }
                Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
            };
            match accepted {
                Ok(accepted) => {
                    if let Accepted::Tcp(stream, _) = &accepted {
                        // OK to ignore: small answers are slower without it.
                        let _ = stream.set_nodelay(true);
                    }
                    return accepted;
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection on {}: {error}", self.address());
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }
}

/// Listens on a Unix socket that only this user can connect to. Replaces a socket that nobody listens on.
fn bind_socket(path: &Path) -> io::Result<Listener> {
    if let Ok(metadata) = std::fs::symlink_metadata(path)
        && metadata.file_type().is_socket()
        && std::os::unix::net::UnixStream::connect(path).is_err()
    {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Listener::Unix(listener, SocketFile(path.to_owned())))
}
