//! What all reads of a table have in common: how fresh they must be, their headers, and what an absent entry means.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::log::{Ack, Offset, Partition};
use crate::serve::http::call::Call;
use crate::serve::http::query::{Query, invalid};
use crate::serve::problem::Problem;
use crate::serve::tables::ServedTable;
use crate::table::{Freshness, Snapshot, StaleReason, Status};

/// The parameters of every read.
pub(super) const READ_PARAMETERS: [&str; 4] = ["fresh", "at_least", "timeout", "max_staleness"];

/// How long a read waits for positions, unless it says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request may ask to wait.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(300);

/// The positions of a topic with more partitions are not in a header.
const MAX_POSITIONS_BYTES: usize = 8 << 10;

const STATUS: HeaderName = HeaderName::from_static("ktables-status");
const STALENESS: HeaderName = HeaderName::from_static("ktables-staleness");
pub(super) const POSITIONS: HeaderName = HeaderName::from_static("ktables-positions");
const FINGERPRINT: HeaderName = HeaderName::from_static("ktables-fingerprint");

/// A consistent view of a table, and what is known about it.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) table: Arc<ServedTable>,
    pub(super) snapshot: Snapshot,
    pub(super) status: Status,
    /// For how long the table has not been caught up.
    staleness: Duration,
    max_staleness: Duration,
}

impl Reading {
    /// Waits until the table is as fresh as the parameters ask, and takes a snapshot.
    pub(super) async fn begin(call: &Call, table: Arc<ServedTable>, query: &Query) -> Result<Self, Problem> {
        wait_until_fresh(&table, query).await?;
        let max_staleness = query.duration("max_staleness", Duration::MAX)?;
        Ok(Self::now(table, max_staleness.unwrap_or(call.server.settings.max_staleness)))
    }

    /// Takes a snapshot now.
    pub(super) fn now(table: Arc<ServedTable>, max_staleness: Duration) -> Self {
        // The status comes first: a table that is caught up stays complete.
        let status = table.table.status();
        let staleness = match status {
            Status::CaughtUp => Duration::ZERO,
            _ => {
                let since = table.table.stats().stale_since;
                since.and_then(|since| SystemTime::now().duration_since(since).ok()).unwrap_or_default()
            }
        };
        let snapshot = table.table.snapshot();
        Self { table, snapshot, status, staleness, max_staleness }
    }

    /// Takes a newer snapshot of the same table.
    pub(super) fn again(&self) -> Self {
        Self::now(self.table.clone(), self.max_staleness)
    }

    /// Returns the headers that every answer about a table has.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(16);
        headers.insert(STATUS, HeaderValue::from_static(self.status.name()));
        headers.insert(STALENESS, self.staleness.as_secs().into());
        if let Some(positions) = format_positions(self.snapshot.positions()) {
            headers.insert(POSITIONS, positions);
        }
        if let Ok(fingerprint) = HeaderValue::from_str(self.snapshot.fingerprint()) {
            headers.insert(FINGERPRINT, fingerprint);
        }
        headers
    }

    /// Fails if the table cannot say that something is absent.
    pub(super) fn require_absence(&self) -> Result<(), Problem> {
        match &self.status {
            Status::CaughtUp => Ok(()),
            Status::Degraded(_)
                if self.max_staleness > Duration::ZERO && self.staleness <= self.max_staleness =>
            {
                Ok(())
            }
            Status::Degraded(reason) => Err(self.unavailable(
                "degraded",
                "The table is degraded",
                format!(
                    "there is no such entry in what was read so far, and the table is degraded: {reason}"
                ),
            )),
            _ => self.require_contents(),
        }
    }

    /// Fails if the table has nothing that can be listed.
    pub(super) fn require_contents(&self) -> Result<(), Problem> {
        let name = &self.table.name;
        match &self.status {
            Status::CaughtUp | Status::Degraded(_) => Ok(()),
            Status::Loading => {
                let progress = self.table.table.stats().loading.map(|loading| format!(": {loading}"));
                let detail = format!("table `{name}` is loading{}", progress.unwrap_or_default());
                Err(self.unavailable("loading", "The table is loading", detail))
            }
            Status::Failed(_) => Err(failed(&self.table).with_headers(&self.headers())),
            Status::Stopped => Err(self.unavailable(
                "stopped",
                "The table has stopped",
                format!("table `{name}` has stopped"),
            )),
        }
    }

    fn unavailable(&self, kind: &'static str, title: &'static str, detail: String) -> Problem {
        Problem::unavailable(kind, title, detail).with_headers(&self.headers())
    }
}

/// The problem of a table that has failed.
pub(super) fn failed(table: &ServedTable) -> Problem {
    let reason = table.table.status().reason().unwrap_or_default();
    let detail = format!("table `{}` has failed: {reason}", table.name);
    Problem::unavailable("failed", "The table has failed", detail)
}

/// Waits until the table is as fresh as the parameters `fresh` and `at_least` ask.
async fn wait_until_fresh(table: &ServedTable, query: &Query) -> Result<(), Problem> {
    let timeout = query.duration("timeout", MAX_TIMEOUT)?.unwrap_or(DEFAULT_TIMEOUT);
    let wanted = query.get("at_least").map(parse_positions).transpose()?.unwrap_or_default();
    // A position is the offset of the next record; the record before it must be visible.
    let reached: Vec<Ack> = wanted
        .into_iter()
        .filter(|&(_, offset)| offset > 0)
        .map(|(partition, offset)| Ack { partition, offset: Some(offset - 1) })
        .collect();
    // Partitions may have been added since the topic was described.
    let known = table.table.snapshot().positions().map(|(partition, _)| partition + 1).max().unwrap_or(0);
    let partitions = known.max(table.table.topic().partitions);
    if let Some(ack) = reached.iter().find(|ack| !(0..partitions).contains(&ack.partition)) {
        return Err(Problem::bad_request(format!(
            "at_least: the topic has no partition {}: it has {partitions}",
            ack.partition
        )));
    }
    if !reached.is_empty() {
        require_fresh(table.table.wait_for(&reached, timeout).await)?;
    }
    if query.flag("fresh", false)? {
        require_fresh(table.table.barrier(timeout).await)?;
    }
    Ok(())
}

/// Fails if the table is not as fresh as it was asked for.
pub(super) fn require_fresh(freshness: Freshness) -> Result<(), Problem> {
    match freshness {
        Freshness::Fresh => Ok(()),
        Freshness::Stale(reason @ StaleReason::Timeout { .. }) => {
            let title = "The table did not become fresh in time";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stale", title, reason.to_string())
                .retry_after(1))
        }
        Freshness::Stale(reason) => {
            Err(Problem::unavailable("stale", "The table cannot become fresh", reason.to_string()))
        }
    }
}

/// Formats positions as `PARTITION:OFFSET,…`. Returns `None` if there are too many for a header.
pub(super) fn format_positions(positions: impl Iterator<Item = (Partition, Offset)>) -> Option<HeaderValue> {
    let mut text = String::new();
    for (partition, offset) in positions {
        let separator = if text.is_empty() { "" } else { "," };
        // OK because writing to a string never fails.
        write!(text, "{separator}{partition}:{offset}").expect("a string");
        if text.len() > MAX_POSITIONS_BYTES {
            return None;
        }
    }
    HeaderValue::from_str(&text).ok()
}

/// Parses positions as `PARTITION:OFFSET,…`.
fn parse_positions(text: &str) -> Result<Vec<(Partition, Offset)>, Problem> {
    let invalid =
        || invalid("at_least", "positions such as 0:5,1:7, as the header Ktables-Positions has them");
    let parse = |part: &str| {
        let (partition, offset) = part.split_once(':')?;
        Some((partition.parse().ok()?, offset.parse().ok().filter(|&offset: &Offset| offset >= 0)?))
    };
    text.split(',').map(|part| parse(part).ok_or_else(invalid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_their_text_form() {
        let positions = vec![(0, 5), (3, i64::MAX)];
        let text = format_positions(positions.iter().copied()).unwrap();
        assert_eq!(parse_positions(text.to_str().unwrap()).unwrap(), positions);
        assert!(format_positions((0..10_000).map(|partition| (partition, 0))).is_none());
        for text in ["", "0", "0:", ":1", "0:-1", "0:1,", "a:1", "0:1;1:2"] {
            assert!(parse_positions(text).is_err(), "{text}");
        }
    }
}
