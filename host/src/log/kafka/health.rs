//! Monitors whether the cluster answers, and whether readers and writers make progress.

pub(super) mod cluster_health;
pub(super) mod monitor;
pub(super) mod monitored;
pub(super) mod stuck;
