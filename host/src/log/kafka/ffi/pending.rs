//! The requests of a client that have no reply yet. Some never get one, because their client ends first.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Mutex;

use tokio::sync::oneshot;

use crate::log::kafka::ffi::event::Reply;
use crate::sync::lock;

/// The senders of replies, by the number of their request. A std lock: held to add or to remove one.
#[derive(Debug, Default)]
pub(in crate::log::kafka) struct PendingReplies(Mutex<(usize, HashMap<usize, oneshot::Sender<Reply>>)>);

impl PendingReplies {
    /// Adds a request. Returns what librdkafka passes back with its reply, and the receiver of the reply.
    pub(super) fn add(&self) -> (*mut c_void, oneshot::Receiver<Reply>) {
        let (sender, receiver) = oneshot::channel();
        let mut pending = lock(&self.0);
        pending.0 += 1;
        let number = pending.0;
        pending.1.insert(number, sender);
        (std::ptr::without_provenance_mut(number), receiver)
    }

    /// Passes a reply to the caller that sent the request.
    pub(in crate::log::kafka) fn deliver(&self, reply: Reply) {
        let sender = lock(&self.0).1.remove(&reply.opaque().addr());
        // The caller may have timed out.
        let _ = sender.map(|sender| sender.send(reply));
    }
}
