//! How a watcher resumes where the history does not reach: the table reads the log again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::table::change::Effect;
use crate::table::view::View;
use crate::table::watch::token::WatchToken;

/// What a watcher needs of its table to resume.
pub(in crate::table) trait Resume: Send + Sync {
    /// Waits until the served view has reached a token. Returns early if it never will, and after a
    /// timeout.
    fn wait_until_reached(&self, token: WatchToken) -> BoxFuture<'static, ()>;

    /// Reads what led from a token to a view from the log: every effect, or those of the newest record
    /// of each key. `None` if the log no longer has it, or if it is too much.
    fn replay(
        &self,
        token: WatchToken,
        view: Arc<View>,
        wants_every: bool,
    ) -> BoxFuture<'static, Option<ReplayedEffects>>;
}

/// How many bytes of decoded records are read for one watcher.
pub(in crate::table) const MAX_REPLAY_BYTES: usize = 64 << 20;

/// How many watchers can read that much at once.
const REPLAYS_AT_ONCE: usize = 4;

/// How long a watcher waits until there is memory for it.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(60);

/// The memory for what is read from the log for the watchers of a table, until it is delivered. It is limited because all
/// watchers of a server resume at once after a restart, and because some clients may read nothing.
#[derive(Debug)]
pub(in crate::table) struct ReplayMemory {
    /// One permit for each KiB.
    permits: Arc<Semaphore>,
}

impl Default for ReplayMemory {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(REPLAYS_AT_ONCE * kib(MAX_REPLAY_BYTES))) }
    }
}

impl ReplayMemory {
    /// Waits for the memory of one watcher. Returns `None` if that takes too long.
    pub(in crate::table) async fn reserve(&self) -> Option<OwnedSemaphorePermit> {
        let permits = self.permits.clone().acquire_many_owned(kib(MAX_REPLAY_BYTES) as u32);
        tokio::time::timeout(RESERVE_TIMEOUT, permits).await.ok()?.ok()
    }
}

/// Rounded up, so that nothing is free.
const fn kib(bytes: usize) -> usize {
    bytes / 1024 + 1
}

/// What was read from the log for a watcher.
#[derive(Debug, Default)]
pub(in crate::table) struct ReplayedEffects {
    effects: VecDeque<Effect>,
    /// The memory that they use, from [`ReplayMemory`].
    memory: Option<OwnedSemaphorePermit>,
}

impl ReplayedEffects {
    /// Keeps as much of the reserved memory as the effects use.
    pub(in crate::table) fn new(
        effects: Vec<Effect>,
        bytes: usize,
        mut memory: OwnedSemaphorePermit,
    ) -> Self {
        let bytes = bytes + effects.len() * size_of::<Effect>();
        let unused = memory.num_permits().saturating_sub(kib(bytes));
        drop(memory.split(unused));
        Self { effects: effects.into(), memory: Some(memory) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    /// Takes the next effect. After the last one, others can use the memory.
    pub(super) fn next(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front();
        if self.is_empty() {
            self.memory = None;
        }
        effect
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn effect() -> Effect {
        let kind = crate::codec::RejectKind::Other;
        let message = "x".to_owned();
        let notice = crate::table::reject::RejectNotice { partition: 0, offset: 0, kind, message };
        Effect::Rejected { key: None, group: None, notice }
    }

    #[tokio::test]
    async fn what_was_read_uses_memory_until_it_is_delivered() {
        let memory = ReplayMemory::default();
        let mut reading = Vec::new();
        while let Some(Some(reserved)) = memory.reserve().now_or_never() {
            reading.push(reserved);
        }
        assert_eq!(reading.len(), REPLAYS_AT_ONCE);
        // Half of it is read, so that two watchers leave room for another one.
        let mut half =
            || ReplayedEffects::new(vec![effect(), effect()], MAX_REPLAY_BYTES / 2, reading.pop().unwrap());
        let (mut first, second) = (half(), half());
        assert!(memory.reserve().now_or_never().is_none());
        drop(second);
        let third = memory.reserve().now_or_never().flatten();
        assert!(third.is_some());
        assert!(memory.reserve().now_or_never().is_none());
        assert!(first.next().is_some() && first.next().is_some());
        assert!(first.is_empty() && first.next().is_none());
        assert!(memory.reserve().now_or_never().flatten().is_some(), "its memory is free");
    }
}
