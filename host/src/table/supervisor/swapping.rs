//! Swaps of codecs: which generation they load, and what becomes of it.

use crate::table::error::TableError;
use crate::table::supervisor::{Restart, Supervisor};
use crate::table::swap::SwapRequest;

impl Supervisor {
    /// Whether the generation that is loaded next waits for a caller.
    pub(super) fn is_next_gated(&self) -> bool {
        let loading = self.loading.as_ref().map(|loading| loading.state.gate());
        let gate = loading.or(self.waiting.as_ref().map(|waiting| waiting.gate.clone()));
        gate.is_some_and(|gate| !gate.is_open())
    }

    /// Loads the generation of a swap again, because the served one has ended: the log may no longer
    /// hold what both have read.
    pub(super) async fn restart_swap(&mut self, served: Restart) {
        let loading = self.loading.as_ref().map(|loading| loading.state.codecs.clone());
        let codecs = loading.or(self.waiting.as_ref().map(|waiting| waiting.codecs.clone()));
        if self.give_up_loading().await
            && let Some(codecs) = codecs
        {
            self.restart(Restart { codecs, ..served.clone() });
            self.fallback = Some(served);
        }
    }

    pub(super) fn begin_swap(&mut self, request: SwapRequest) {
        let topic = self.shared.topic_name();
        // The generation may be served although its event has not arrived yet.
        self.finish_switch(self.shared.reported().number);
        if request.answer.is_closed() {
            return;
        }
        if self.loading.is_some() || self.waiting.is_some() {
            let _ = request.answer.send(Err(TableError::Loading { topic }));
            return;
        }
        tracing::info!(topic, "loading the topic with other codecs");
        self.swap = Some(request.answer);
        self.start(self.shared.view().topic.clone(), request.codecs, request.gate, None);
    }

    pub(super) async fn cancel_swap(&mut self) {
        self.swap = None;
        if self.give_up_loading().await {
            tracing::info!(topic = self.shared.topic_name(), "gave up the other codecs");
            self.restart_served();
        }
    }

    pub(super) async fn fail_swap(&mut self, error: TableError) {
        // If it is served already, the answer was sent.
        if self.give_up_loading().await
            && let Some(swap) = self.swap.take()
        {
            // OK to ignore: whoever asked does not wait any more.
            let _ = swap.send(Err(error));
        }
        self.restart_served();
    }

    /// Loads the served topic again if its generation ended during a swap that was given up.
    fn restart_served(&mut self) {
        if let Some(restart) = self.fallback.take() {
            self.restart(restart);
        }
    }
}
