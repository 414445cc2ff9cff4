//! Whether a table is complete, what it has read and holds, and what it noticed about the writers.

mod anomaly;
mod conditions;
mod stats;
mod table_status;

pub(super) use anomaly::AnomalyCounts;
pub use anomaly::{AnomalyCount, WriterAnomaly};
pub(super) use conditions::{Conditions, GenerationConditions};
pub use stats::{CheckpointStats, LoadProgress, PartitionProgress, Stats};
pub use table_status::Status;
