//! Topic, codecs and options of a writer.

use std::sync::Arc;
use std::time::Duration;

use crate::codec::Codecs;
use crate::codec::workers::Lane;
use crate::log::{Ack, Log, TopicDescription};
use crate::table::{Freshness, StaleReason, Table};
use crate::writer::write::Verify;

/// Topic, codecs and options of a writer.
#[derive(Debug, Clone)]
pub(super) struct Publisher {
    pub(super) log: Arc<dyn Log>,
    pub(super) topic: Arc<TopicDescription>,
    pub(super) codecs: Codecs,
    /// The queue of the codec workers for its jobs.
    pub(super) lane: Lane,
    pub(super) verify: Verify,
    /// The table in which each write must become visible, and the timeout for that.
    pub(super) visible_in: Option<(Table, Duration)>,
}

impl Publisher {
    /// Waits until durable records are visible in the table, if one was set.
    pub(super) async fn wait_until_visible(&self, acks: &[Ack]) -> Result<(), StaleReason> {
        let Some((table, timeout)) = &self.visible_in else { return Ok(()) };
        match table.wait_for(acks, *timeout).await {
            Freshness::Fresh => Ok(()),
            Freshness::Stale(reason) => Err(reason),
        }
    }
}
