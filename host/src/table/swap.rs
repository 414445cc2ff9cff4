//! Swaps of codecs: another generation is loaded beside the served one, can be compared with it, and then takes its
//! place.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::codec::Codecs;
use crate::table::error::TableError;
use crate::table::reject::RejectedRecord;
use crate::table::shared::Shared;
use crate::table::snapshot::Snapshot;
use crate::table::status::Stats;
use crate::table::swap_gate::{Retention, SwapAnswer, SwapGate};

/// A request to decode the topic with other codecs.
#[derive(Debug)]
pub(super) struct SwapRequest {
    pub(super) codecs: Codecs,
    pub(super) gate: Arc<SwapGate>,
    pub(super) answer: SwapAnswer,
}

/// Another decoding of a table's topic, which is loaded and follows the topic, and which the table does not serve yet.
/// See [`Table::prepare_swap`](crate::table::Table::prepare_swap). Dropping it gives it up. It does not keep the table
/// running, and its contents stay in memory as long as it does.
#[must_use = "the decoding that it holds is given up when it is dropped"]
pub struct PreparedSwap {
    shared: Arc<Shared>,
    gate: Arc<SwapGate>,
    served: oneshot::Receiver<Result<u64, TableError>>,
}

/// Shows only the topic: the contents of a table must not appear in logs.
impl fmt::Debug for PreparedSwap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedSwap").field("topic", &self.shared.topic_name()).finish_non_exhaustive()
    }
}

impl PreparedSwap {
    /// Creates a request, and what follows it.
    pub(super) fn request(shared: Arc<Shared>, codecs: Codecs) -> (SwapRequest, Self) {
        let (answer, served) = oneshot::channel();
        let gate = SwapGate::closed();
        (SwapRequest { codecs, gate: gate.clone(), answer }, Self { shared, gate, served })
    }

    /// Waits until the generation is complete.
    pub(super) async fn wait_until_complete(&mut self) -> Result<(), TableError> {
        tokio::select! {
            () = self.gate.wait_until_offered() => Ok(()),
            answer = &mut self.served => match answer {
                Ok(Err(error)) => Err(error),
                Ok(Ok(_)) | Err(_) => Err(self.ended()),
            },
        }
    }

    fn ended(&self) -> TableError {
        TableError::Ended { topic: self.shared.topic_name() }
    }

    /// The newest contents of the other decoding.
    ///
    /// # Errors
    ///
    /// [`TableError::Ended`] if it was given up: committing it says why.
    pub fn snapshot(&self) -> Result<Snapshot, TableError> {
        self.gate.offered().map(Snapshot::new).ok_or_else(|| self.ended())
    }

    /// Statistics of the other decoding; `None` if it was given up.
    #[must_use]
    pub fn stats(&self) -> Option<Stats> {
        Some(self.shared.stats_of(&*self.shared.next_with(&self.gate)?))
    }

    /// The records that the other decoding rejected last, oldest first: at most 1,000, and at most 16 MiB.
    #[must_use]
    pub fn rejects(&self) -> Vec<RejectedRecord> {
        self.shared.next_with(&self.gate).map(|next| next.rejects()).unwrap_or_default()
    }

    /// Serves the other decoding, in one step, as soon as it is not behind. Returns the decoding that was served before,
    /// which follows the topic until this is dropped, so that committing it goes back at once. The checkpoint of the
    /// table goes on with the decoding that was served before, while that is kept; then none is written until the table
    /// is started again.
    ///
    /// # Errors
    ///
    /// [`TableError::SwapFailed`] if the other decoding no longer follows the topic, [`TableError::MemoryLimit`] if both
    /// need too much memory, [`TableError::Ended`] if the table has ended, or why the topic cannot be read. The table
    /// then continues as before.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it returns, the switch may or may not have happened. If it has, there is no way back.
    pub async fn commit(self) -> Result<Self, TableError> {
        let Self { shared, gate, mut served } = self;
        if let Ok(Err(error)) = served.try_recv() {
            return Err(error);
        }
        let (answer, back) = oneshot::channel();
        let retained = SwapGate::closed();
        let before = shared.reported();
        before.retain(Retention { gate: retained.clone(), answer });
        gate.let_pass();
        let result = served.await.unwrap_or_else(|_| Err(TableError::Ended { topic: shared.topic_name() }));
        match result {
            Ok(_) => Ok(Self { shared, gate: retained, served: back }),
            Err(error) => {
                before.take_retention();
                Err(error)
            }
        }
    }
}
