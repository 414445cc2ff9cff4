//! Detects clients that receive nothing although the cluster answers other clients, so that they are refreshed
//! or replaced.
//!
//! After a broker was frozen, clients were seen to stop for ever without an error. Whatever the cause is, the
//! symptom is the same: the cluster answers other clients, and a consumer receives no data, or a producer no
//! delivery report.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::log::{Offset, Partition, PartitionSample};

/// The longest time between two replacements that did not help.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// How many probes of a producer must fail, one after the other, before it is replaced.
const FAILED_PROBES: u32 = 3;

/// What may help a stuck consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::kafka) enum Remedy {
    /// Requesting anew who leads the partitions.
    Refresh,
    /// Another client in its place.
    Replace,
}

/// Detects a consumer that makes no progress, by comparing its positions at the checks that the cluster answered.
#[derive(Debug, Default)]
pub(in crate::log::kafka) struct StuckDetector {
    /// The positions of partitions with more to read, at the last check.
    positions: HashMap<Partition, Offset>,
    /// The number of consecutive checks at which a position had not changed.
    checks: u32,
    /// When the client was replaced, and how long to wait before replacing it again.
    replaced: Option<(Instant, Duration)>,
}

impl StuckDetector {
    /// Checks the positions of the partitions that have more to read. Returns what to do with the client.
    pub(in crate::log::kafka) fn check(
        &mut self,
        waiting: impl IntoIterator<Item = (Partition, Offset)>,
        now: Instant,
        stale_after: Duration,
    ) -> Option<Remedy> {
        let waiting: HashMap<_, _> = waiting.into_iter().collect();
        let is_same = |(partition, position)| self.positions.get(partition) == Some(position);
        let is_stalled = waiting.iter().any(is_same);
        self.positions = waiting;
        if !is_stalled {
            (self.checks, self.replaced) = (0, None);
            return None;
        }
        self.checks += 1;
        if self.checks == 1 {
            return Some(Remedy::Refresh);
        }
        let next = match self.replaced {
            Some((when, pause)) if now.saturating_duration_since(when) < pause => return None,
            Some((_, pause)) => (pause * 2).min(MAX_PAUSE),
            None => stale_after,
        };
        self.replaced = Some((now, next));
        Some(Remedy::Replace)
    }
}

/// Detects partitions whose leaders were silent for long: the client may still ask a broker that no longer
/// leads them.
#[derive(Debug, Default)]
pub(in crate::log::kafka) struct SilenceDetector {
    /// Since when partitions have been silent, and whether that was for long already.
    silent: HashMap<Partition, (Instant, bool)>,
}

impl SilenceDetector {
    /// Returns whether a partition has just been silent for `stale_after`, or answers again after that.
    pub(in crate::log::kafka) fn check(
        &mut self,
        samples: &[PartitionSample],
        now: Instant,
        stale_after: Duration,
    ) -> bool {
        let mut has_changed = false;
        for sample in samples {
            if sample.end.is_some() {
                has_changed |= self.silent.remove(&sample.partition).is_some_and(|(_, is_long)| is_long);
                continue;
            }
            let (since, is_long) = self.silent.entry(sample.partition).or_insert((now, false));
            if !*is_long && now.saturating_duration_since(*since) >= stale_after {
                *is_long = true;
                has_changed = true;
            }
        }
        has_changed
    }
}

/// What to do with a producer that receives no delivery report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::kafka) enum ProducerAction {
    /// Sending a request with it that any broker can answer.
    Probe,
    /// Starting another one in its place.
    Replace,
}

/// Counts the probes of a producer that fail between checks at which the cluster answers other clients.
#[derive(Debug, Default)]
pub(in crate::log::kafka) struct StuckProducerDetector {
    /// The number of probes that failed in sequence.
    failed: u32,
    /// When the first of them failed.
    failed_since: Option<Instant>,
    /// Whether a probe is under way.
    is_probing: bool,
}

impl StuckProducerDetector {
    /// Returns what to do with a producer, at a check of the topics that the cluster answered. It has answered all
    /// checks since `answering_since`. The producer has received no delivery report since `silent_since`; that is
    /// `None` if it waits for none.
    ///
    /// Time before `answering_since` does not count: a producer whose records wait because of an outage needs some
    /// time after it to connect again.
    pub(in crate::log::kafka) fn check(
        &mut self,
        silent_since: Option<Instant>,
        answering_since: Instant,
        now: Instant,
        stale_after: Duration,
    ) -> Option<ProducerAction> {
        let is_long_ago = |since| now.saturating_duration_since(since) >= stale_after / 2;
        let suspect_since =
            silent_since.map(|since| since.max(answering_since)).filter(|&since| is_long_ago(since));
        let is_relevant = |failed| suspect_since.is_some_and(|since| failed >= since);
        if !self.failed_since.is_some_and(is_relevant) {
            (self.failed, self.failed_since) = (0, None);
        }
        suspect_since?;
        if self.is_probing {
            return None;
        }
        if self.failed >= FAILED_PROBES && self.failed_since.is_some_and(is_long_ago) {
            return Some(ProducerAction::Replace);
        }
        self.is_probing = true;
        Some(ProducerAction::Probe)
    }

    /// Records the end of a probe, and whether it failed.
    pub(in crate::log::kafka) fn record_probe(&mut self, has_failed: bool, now: Instant) {
        self.is_probing = false;
        if has_failed {
            self.failed += 1;
            self.failed_since.get_or_insert(now);
        } else {
            (self.failed, self.failed_since) = (0, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_is_replaced_only_if_the_cluster_answers_between_its_failed_probes() {
        let (start, stale_after) = (Instant::now(), Duration::from_secs(10));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut stuck = StuckProducerDetector::default();
        let (probe, replace) = (Some(ProducerAction::Probe), Some(ProducerAction::Replace));
        assert_eq!(stuck.check(Some(at(0)), at(0), at(4), stale_after), None);
        // One probe at a time.
        assert_eq!(stuck.check(Some(at(0)), at(0), at(5), stale_after), probe);
        assert_eq!(stuck.check(Some(at(0)), at(0), at(5), stale_after), None);
        stuck.record_probe(true, at(5));
        // Probes that fail in quick sequence do not suffice.
        for second in [6, 7, 8, 9] {
            assert_eq!(stuck.check(Some(at(0)), at(0), at(second), stale_after), probe);
            stuck.record_probe(true, at(second));
        }
        assert_eq!(stuck.check(Some(at(0)), at(0), at(10), stale_after), replace);
        // After an outage, it begins anew.
        assert_eq!(stuck.check(Some(at(0)), at(11), at(12), stale_after), None);
        assert_eq!(stuck.check(Some(at(0)), at(11), at(16), stale_after), probe);
        stuck.record_probe(true, at(18));
        // After a delivery report, too.
        assert_eq!(stuck.check(Some(at(19)), at(11), at(26), stale_after), probe);
        stuck.record_probe(true, at(26));
        assert_eq!(stuck.check(Some(at(19)), at(11), at(40), stale_after), probe);
        stuck.record_probe(false, at(40));
        for second in [41, 61] {
            assert_eq!(stuck.check(Some(at(19)), at(11), at(second), stale_after), probe);
            stuck.record_probe(true, at(second));
        }
        assert_eq!(stuck.check(Some(at(19)), at(11), at(80), stale_after), probe);
        // Nothing is outstanding.
        assert_eq!(stuck.check(None, at(11), at(90), stale_after), None);
    }

    #[test]
    fn a_stuck_client_is_refreshed_then_replaced_less_and_less_often() {
        let (start, stale_after) = (Instant::now(), Duration::from_secs(10));
        let mut stuck = StuckDetector::default();
        let mut check =
            |seconds, at| stuck.check([(0, at)], start + Duration::from_secs(seconds), stale_after);
        assert_eq!(
            (check(0, 5), check(3, 5), check(6, 5)),
            (None, Some(Remedy::Refresh), Some(Remedy::Replace))
        );
        assert_eq!((check(9, 5), check(15, 5), check(16, 5)), (None, None, Some(Remedy::Replace)));
        assert_eq!((check(30, 5), check(36, 5)), (None, Some(Remedy::Replace)));
        // It advances.
        assert_eq!((check(39, 6), check(42, 6)), (None, Some(Remedy::Refresh)));
    }

    #[test]
    fn a_long_silence_is_detected_when_it_is_long_and_when_it_ends() {
        let (start, stale_after) = (Instant::now(), Duration::from_secs(10));
        let mut silence = SilenceDetector::default();
        let mut check = |seconds, end| {
            let sample = PartitionSample { end, ..PartitionSample::unknown(3) };
            silence.check(&[sample], start + Duration::from_secs(seconds), stale_after)
        };
        // A short one is not.
        assert_eq!((check(0, Some(5)), check(3, None), check(6, Some(5))), (false, false, false));
        assert_eq!((check(9, None), check(18, None), check(19, None)), (false, false, true));
        assert_eq!((check(22, None), check(25, Some(5)), check(28, Some(5))), (false, true, false));
    }

    #[test]
    fn a_client_that_advances_or_has_everything_is_left_alone() {
        let (now, stale_after) = (Instant::now(), Duration::from_secs(10));
        let mut stuck = StuckDetector::default();
        for offset in 0..9 {
            assert_eq!(stuck.check([(0, offset)], now, stale_after), None);
            assert_eq!(stuck.check([], now, stale_after), None);
        }
    }
}
