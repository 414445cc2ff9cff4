//! A stream that fails when its other end does nothing for too long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What a client of HTTP/2 sends first.
const HTTP2_PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many bytes must arrive in the time for the first ones: with fewer, the version of HTTP is not known, and only with
/// a version has a request its own deadline.
const FIRST_BYTES: usize = HTTP2_PREFACE.len();

/// A stream that fails when its other end sends nothing at first, or reads nothing while bytes wait for it.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    /// Until when the first bytes must arrive; `None` after them.
    first: Option<Pin<Box<Sleep>>>,
    /// How many bytes have arrived so far.
    read: usize,
    /// The first bytes, and which of them have to be read again, because they were read to find the version of HTTP.
    first_bytes: [u8; FIRST_BYTES],
    unread: std::ops::Range<usize>,
    /// How long bytes may wait for the other end, and since when they do.
    write_timeout: Duration,
    write: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, first_timeout: Duration, write_timeout: Duration) -> Self {
        let first = Some(Box::pin(tokio::time::sleep_until(Instant::now() + first_timeout)));
        let (first_bytes, unread) = ([0; FIRST_BYTES], 0..0);
        Self { stream, first, read: 0, first_bytes, unread, write_timeout, write: None }
    }

    /// Starts or ends the time that bytes wait, after an attempt to write some.
    fn watch_write<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write = None;
            return result;
        }
        let timeout = self.write_timeout;
        let sleep = self.write.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        match sleep.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Reads as much as tells the versions of HTTP apart, and returns whether the client speaks HTTP/2. Everything can be
    /// read again afterwards.
    pub(super) async fn is_http2(&mut self) -> io::Result<bool> {
        let (mut bytes, mut read) = ([0; FIRST_BYTES], 0);
        while read < FIRST_BYTES && HTTP2_PREFACE.starts_with(&bytes[..read]) {
            match self.read(&mut bytes[read..]).await? {
                0 => break,
                more => read += more,
            }
        }
        (self.first_bytes, self.unread) = (bytes, 0..read);
        Ok(bytes == HTTP2_PREFACE)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let again = this.unread.start..this.unread.end.min(this.unread.start + buffer.remaining());
        buffer.put_slice(&this.first_bytes[again.clone()]);
        this.unread.start = again.end;
        if !again.is_empty() {
            // Whatever has arrived after them is read at once: a caller that gets it in parts needs a larger buffer.
            let more = Pin::new(&mut this.stream).poll_read(context, buffer);
            return if let Poll::Ready(Err(error)) = more {
                Poll::Ready(Err(error))
            } else {
                Poll::Ready(Ok(()))
            };
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.read = self.read.saturating_add(buffer.filled().len() - before);
        if self.read >= FIRST_BYTES {
            self.first = None;
        }
        let Some(first) = &mut self.first else { return result };
        if result.is_ready() {
            return result;
        }
        match first.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch_write(context, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.watch_write(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch_write(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch_write(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_client_that_sends_nothing_is_disconnected() {
        let (_client, server) = duplex(10);
        let error = Watched::new(server, SHORT, LONG).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn the_version_is_known_from_the_first_bytes_which_are_read_again() {
        for (sent, is_http2) in [
            (&[&HTTP2_PREFACE[..], b"more"].concat()[..], true),
            (b"GET / HTTP/1.1\r\n\r\n", false),
            (b"PRI * HTTP/1.1\r\n\r\n and more than a preface", false),
            (b"PRI", false),
            (b"", false),
        ] {
            let (mut client, server) = duplex(100);
            client.write_all(sent).await.unwrap();
            drop(client);
            let mut server = Watched::new(server, LONG, LONG);
            assert_eq!(server.is_http2().await.unwrap(), is_http2);
            let mut received = [0; 100];
            let read = server.read(&mut received).await.unwrap();
            assert_eq!(&received[..read], sent, "all of it at once");
            assert_eq!(server.read(&mut received).await.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_disconnected() {
        let (_client, server) = duplex(10);
        let error = Watched::new(server, LONG, SHORT).write_all(&[0; 30]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_reads_again_has_the_whole_time_again() {
        let (mut client, server) = duplex(10);
        let mut server = Watched::new(server, LONG, LONG);
        let write = std::pin::pin!(server.write_all(&[0; 15]));
        assert!(futures_util::FutureExt::now_or_never(write).is_none());
        assert!(server.write.is_some());
        let mut rest = [0; 10];
        client.read_exact(&mut rest).await.unwrap();
        server.write_u8(1).await.unwrap();
        assert!(server.write.is_none());
    }

    #[tokio::test]
    async fn a_client_may_be_silent_after_its_first_bytes() {
        let (mut client, server) = duplex(10);
        let mut server = Watched::new(server, SHORT, SHORT);
        for _ in 0..FIRST_BYTES {
            client.write_u8(1).await.unwrap();
            server.read_u8().await.unwrap();
        }
        assert!(tokio::time::timeout(4 * SHORT, server.read_u8()).await.is_err());
        client.write_u8(2).await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), 2);
    }
}
