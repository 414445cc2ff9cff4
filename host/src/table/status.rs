//! The status of a table, its statistics, and the anomalies of writers that it noticed.

mod anomaly;
mod conditions;
mod lag;
mod latency;
mod stats;
mod table_status;

pub(super) use anomaly::AnomalyCounts;
pub use anomaly::{AnomalyCount, WriterAnomaly};
pub(super) use conditions::{Conditions, GenerationConditions};
pub(super) use lag::{Lag, LagCause};
pub(super) use latency::LatencyCounter;
pub use latency::{Latencies, Latency};
pub use stats::{CheckpointStats, DeadLetterStats, LoadProgress, PartitionProgress, Stats};
pub use table_status::Status;
