//! The gate at which a generation waits that must not be served yet.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::table::error::TableError;
use crate::table::view::View;
use crate::thread::run_in_background;

/// Whether a loaded generation may be served.
#[derive(Debug)]
pub(super) struct SwapGate {
    is_open: watch::Sender<bool>,
    /// The newest view of a complete generation that waits for the gate.
    offered: watch::Sender<Option<Arc<View>>>,
}

impl SwapGate {
    fn new(is_open: bool) -> Arc<Self> {
        Arc::new(Self { is_open: watch::channel(is_open).0, offered: watch::channel(None).0 })
    }

    /// Returns the gate of a generation that is served as soon as it is complete.
    pub(super) fn open() -> Arc<Self> {
        Self::new(true)
    }

    /// Returns the gate of a generation that waits for a caller.
    pub(super) fn closed() -> Arc<Self> {
        Self::new(false)
    }

    /// Opens the gate.
    pub(super) fn let_pass(&self) {
        self.is_open.send_replace(true);
    }

    pub(super) fn is_open(&self) -> bool {
        *self.is_open.borrow()
    }

    /// Waits until the gate is open.
    pub(super) async fn wait_until_open(&self) {
        // OK to ignore: the sender lives in `self`.
        let _ = self.is_open.subscribe().wait_for(|&is_open| is_open).await;
    }

    /// Offers the view of a generation that waits for the gate.
    pub(super) fn offer(&self, view: Arc<View>) {
        self.offered.send_replace(Some(view));
    }

    /// Drops the view that was offered last: it would keep rows that the served one no longer has.
    pub(super) fn withdraw_offer(&self) {
        let view = self.offered.send_replace(None);
        // It may be the last owner of millions of rows.
        run_in_background(move || drop(view));
    }

    /// Waits until a view was offered.
    pub(super) async fn wait_until_offered(&self) {
        // OK to ignore: the sender lives in `self`.
        let _ = self.offered.subscribe().wait_for(Option::is_some).await;
    }

    /// The view that was offered last.
    pub(super) fn offered(&self) -> Option<Arc<View>> {
        self.offered.borrow().clone()
    }
}

impl Drop for SwapGate {
    fn drop(&mut self) {
        self.withdraw_offer();
    }
}

/// Receives the number of the new generation once it is served, or why it never will be. If the receiver is dropped,
/// the swap is cancelled.
pub(super) type SwapAnswer = oneshot::Sender<Result<u64, TableError>>;

/// What keeps a generation that was replaced: it follows the topic, and can be served again.
#[derive(Debug)]
pub(super) struct Retention {
    pub(super) gate: Arc<SwapGate>,
    pub(super) answer: SwapAnswer,
}

impl Retention {
    /// Whether somebody still wants to go back to the generation.
    pub(super) fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }
}
