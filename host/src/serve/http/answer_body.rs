//! The body of an answer: it holds what the request uses, and ends if its client takes nothing of it for too long.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::serve::net::Peer;
use crate::sync::lock;

/// Marks the answer of a watch, which counts as a watch and not as a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndlessBody;

/// The body of an answer. The timeout of a connection does not cover it: a client of HTTP/2 can take nothing of one
/// stream while its connection is alive.
pub(super) struct AnswerBody<T> {
    body: Body,
    /// What was taken of the body, and is passed on in parts.
    rest: Bytes,
    state: Arc<Mutex<State>>,
    /// Held until the body has ended.
    _in_use: T,
}

#[derive(Debug, Default)]
struct State {
    /// Since when a part of the body waits for the client; `None` while the client waits for the next one.
    waits_since: Option<Instant>,
    is_over: bool,
}

impl<T: Send + Unpin + 'static> AnswerBody<T> {
    /// Wraps a body. If the client takes nothing for `timeout`, its connection is closed.
    pub(super) fn wrap(body: Body, peer: Option<&Arc<Peer>>, timeout: Duration, in_use: T) -> Body {
        // A body that is known already is in the buffers of the connection, which have a timeout of their own.
        if body.size_hint().exact().is_some_and(|bytes| bytes <= SMALL_BYTES) {
            return body;
        }
        let state = Arc::new(Mutex::new(State { waits_since: Some(Instant::now()), is_over: false }));
        if let Some(peer) = peer.cloned() {
            let state = Arc::downgrade(&state);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(timeout / 4).await;
                    let Some(state) = state.upgrade() else { return };
                    let State { waits_since, is_over } = &*lock(&state);
                    if *is_over {
                        return;
                    }
                    if waits_since.is_some_and(|since| since.elapsed() >= timeout) {
                        peer.close.notify_one();
                        return;
                    }
                }
            });
        }
        Body::new(Self { body, rest: Bytes::new(), state, _in_use: in_use })
    }
}

/// A body of this size at most does not wait for its client.
const SMALL_BYTES: u64 = 64 << 10;

impl<T: Send + Unpin> HttpBody for AnswerBody<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // HTTP/2 takes a whole frame as soon as there is room for one byte of it.
        let polled = if self.rest.is_empty() {
            Pin::new(&mut self.body).poll_frame(context)
        } else {
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest)))))
        };
        let polled = polled.map(|frame| {
            frame.map(|frame| {
                frame.map(|frame| match frame.into_data() {
                    Ok(mut data) => {
                        self.rest = data.split_off(data.len().min(SMALL_BYTES as usize));
                        Frame::data(data)
                    }
                    Err(frame) => frame,
                })
            })
        });
        let mut state = lock(&self.state);
        state.waits_since = polled.is_ready().then(Instant::now);
        state.is_over |= matches!(polled, Poll::Ready(None));
        drop(state);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(body.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn peer() -> Arc<Peer> {
        Arc::new(Peer::new(None))
    }

    fn endless() -> Body {
        let chunks = futures_util::stream::repeat_with(|| Ok::<_, axum::Error>(Bytes::from_static(b"x")));
        Body::from_stream(chunks)
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_disconnected_and_one_that_waits_is_not() {
        let timeout = Duration::from_millis(50);
        let (slow, waiting) = (peer(), peer());
        let slow_body = AnswerBody::wrap(endless(), Some(&slow), timeout, ());
        let pending = Body::from_stream(futures_util::stream::pending::<Result<Bytes, axum::Error>>());
        let mut waiting_body = AnswerBody::wrap(pending, Some(&waiting), timeout, ());
        let frame = tokio::time::timeout(4 * timeout, waiting_body.frame()).await;
        assert!(frame.is_err(), "there is nothing to take");
        slow.close.notified().await;
        assert!(tokio::time::timeout(timeout, waiting.close.notified()).await.is_err());
        drop((slow_body, waiting_body));
    }

    #[tokio::test]
    async fn what_a_request_uses_is_held_until_its_body_ends() {
        let in_use = Arc::new(());
        let body = AnswerBody::wrap(endless(), None, Duration::from_secs(1), in_use.clone());
        assert_eq!(Arc::strong_count(&in_use), 2);
        drop(body);
        assert_eq!(Arc::strong_count(&in_use), 1);
    }
}
