//! Compares what a generation has applied with the end offsets of its partitions, from one sample to the
//! next.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::log::{Offset, Partition, PartitionSample};
use crate::table::status::{Lag, LagCause};
use crate::time::TimePoint;

/// The maximum number of end offsets from the last `stale_after` that are kept for a partition.
const MAX_ENDS: u32 = 16;

/// Whether a partition has records that were not applied, or may have some because its end is unknown.
fn is_behind(sample: &PartitionSample, position: Offset) -> bool {
    sample.end.is_none_or(|end| position < end)
}

/// Returns why a partition lags. `is_stalled` says that its position has not changed for `stale_after`,
/// `was_silent` that no broker answered for the sample before.
fn cause(sample: &PartitionSample, position: Offset, is_stalled: bool, was_silent: bool) -> LagCause {
    match (sample.end, sample.stable) {
        (None, _) => LagCause::Silent,
        _ if was_silent => LagCause::Recovering,
        (Some(end), Some(stable)) if stable < end && position >= stable => LagCause::OpenTransaction,
        // If everything read was applied, codec and table are not the cause.
        _ if is_stalled && sample.read <= position => LagCause::Unread,
        _ => LagCause::Slow,
    }
}

/// A partition that is behind.
#[derive(Debug)]
struct LaggingPartition {
    /// The last sample.
    sample: PartitionSample,
    position: Offset,
    /// The time of the last sample before the position was reached.
    position_since: TimePoint,
    /// The last time for which everything is known to be applied that the partition held then.
    complete_at: TimePoint,
    /// Whether no broker answered for the sample before the last one.
    was_silent: bool,
    /// The end offsets of later samples that are not reached yet, oldest first.
    ends: VecDeque<SampledEnd>,
}

/// An end offset, or a silence, of one or more consecutive samples.
#[derive(Debug, Clone, Copy)]
struct SampledEnd {
    /// `None` if no broker answered.
    end: Option<Offset>,
    /// The time of its first sample.
    first: Instant,
    /// The time of its last sample; of a silence, the time when it began.
    time: TimePoint,
}

impl LaggingPartition {
    fn new(sample: PartitionSample, position: Offset, time: TimePoint) -> Self {
        let ends = VecDeque::new();
        Self { sample, position, position_since: time, complete_at: time, was_silent: false, ends }
    }

    /// Updates the position. `before` is the time of the previous sample, when it may not have been reached.
    fn update_position(&mut self, position: Offset, before: TimePoint) {
        if position != self.position {
            (self.position, self.position_since) = (position, before);
        }
        let is_reached = |sampled: &SampledEnd| sampled.end.is_some_and(|end| end <= position);
        if let Some(last) = self.ends.iter().rposition(is_reached) {
            let reached = self.ends.drain(..=last).next_back();
            self.complete_at = reached.map_or(self.complete_at, |reached| reached.time);
        }
    }

    /// Adds an end offset. Keeps one of those that are older than `stale_after`, and a limited number of the
    /// others, evenly spaced.
    fn add_end(&mut self, end: Option<Offset>, time: TimePoint, stale_after: Duration) {
        let age = |of: TimePoint| time.0.saturating_duration_since(of.0);
        match self.ends.back_mut() {
            // Keeps the time at which the silence began.
            Some(SampledEnd { end: None, .. }) if end.is_none() => {}
            Some(last) if last.end == end => last.time = time,
            Some(last) if age(last.time) < stale_after / MAX_ENDS => {}
            _ => self.ends.push_back(SampledEnd { end, first: time.0, time }),
        }
        while self.ends.get(1).is_some_and(|sampled| age(sampled.time) >= stale_after) {
            self.ends.pop_front();
        }
    }

    /// Whether no broker answered for the last sample.
    fn is_silent(&self) -> bool {
        self.ends.back().is_some_and(|sampled| sampled.end.is_none())
    }

    /// The time at which the partition counts as lagging, if its position does not change before:
    /// `stale_after` after everything was last applied, or, if no end offset is known, after the beginning
    /// of the silence. An end offset that was sampled first after that time, as after a silence, may be
    /// reached in a moment.
    fn due(&self, stale_after: Duration) -> Option<Instant> {
        let silence = self.ends.front()?.time.0;
        Some(match self.ends.iter().find(|sampled| sampled.end.is_some()) {
            Some(known) => (self.complete_at.0 + stale_after).max(known.first + stale_after / MAX_ENDS),
            None => silence + stale_after,
        })
    }
}

/// Tracks the partitions of one generation.
#[derive(Debug)]
pub(super) struct LagTracker {
    /// How long records may stay unapplied before their partition counts as lagging.
    stale_after: Duration,
    lagging: HashMap<Partition, LaggingPartition>,
    /// The time of the last sample.
    sampled: TimePoint,
    /// The lags that were reported last, by partition.
    reported: Vec<Lag>,
}

impl LagTracker {
    /// Creates a tracker for a generation that begins to read at this time.
    pub(super) fn new(stale_after: Duration, time: TimePoint) -> Self {
        Self { stale_after, lagging: HashMap::new(), sampled: time, reported: Vec::new() }
    }

    fn reported(&self, partition: Partition) -> Option<&Lag> {
        let index = self.reported.binary_search_by_key(&partition, |lag| lag.partition).ok()?;
        self.reported.get(index)
    }

    /// Evaluates samples that were requested at this time, with the positions that were applied since.
    /// Returns all lagging partitions, if they differ from those that were returned last. A partition lags
    /// if not everything was applied that it held `stale_after` ago. A sample with an end
    /// offset shows that only if the one before did, too, however long a sample takes; a sample without one
    /// shows it alone.
    pub(super) fn evaluate(
        &mut self,
        mut samples: Vec<(PartitionSample, Offset)>,
        time: TimePoint,
    ) -> Option<Vec<Lag>> {
        samples.sort_unstable_by_key(|(sample, _)| sample.partition);
        let before = std::mem::replace(&mut self.sampled, time);
        let is_stale = |of: TimePoint| time.0.saturating_duration_since(of.0) >= self.stale_after;
        let mut known = std::mem::take(&mut self.lagging);
        let mut lags = Vec::new();
        for (sample, position) in
            samples.into_iter().filter(|(sample, position)| is_behind(sample, *position))
        {
            let PartitionSample { partition, end, .. } = sample;
            let mut lagging =
                known.remove(&partition).unwrap_or_else(|| LaggingPartition::new(sample, position, before));
            let is_unmoved = lagging.position == position;
            lagging.update_position(position, before);
            lagging.sample = sample;
            let reported = self.reported(partition);
            let was_reported_silent = reported.is_some_and(|lag| lag.cause == LagCause::Silent);
            // An end offset of an earlier sample that is not reached yet, or a silence that has lasted.
            let is_missed = |sampled: &SampledEnd| sampled.end.is_some() || is_stale(sampled.time);
            let is_confirmed = end.is_none() || was_reported_silent || lagging.ends.iter().any(is_missed);
            if is_stale(lagging.complete_at) && is_confirmed {
                // After a silence, records that were written meanwhile may still be arriving.
                let is_stalled = is_unmoved && is_stale(lagging.position_since);
                let cause = cause(&sample, position, is_stalled, lagging.is_silent());
                let lag = Lag { partition, position, end, since: lagging.complete_at.1, cause };
                lags.push(reported.map_or(lag.clone(), |reported| reported.updated(lag)));
            }
            lagging.was_silent = lagging.is_silent();
            lagging.add_end(end, time, self.stale_after);
            self.lagging.insert(partition, lagging);
        }
        self.report(lags)
    }

    /// Evaluates positions with the last samples, while no new ones arrive. Returns all lagging partitions,
    /// if they differ from those that were returned last. `time` is not before [`LagTracker::due`], if that
    /// was waited for.
    pub(super) fn evaluate_overdue(
        &mut self,
        position: impl Fn(Partition) -> Offset,
        time: TimePoint,
    ) -> Option<Vec<Lag>> {
        let before = self.sampled;
        let mut lags = self.reported.clone();
        for (&partition, lagging) in &mut self.lagging {
            let position = position(partition);
            let is_unmoved = lagging.position == position;
            lagging.update_position(position, before);
            let is_stale = |of: TimePoint| time.0.saturating_duration_since(of.0) >= self.stale_after;
            if lagging.due(self.stale_after).is_none_or(|due| due > time.0) {
                continue;
            }
            if let Err(index) = lags.binary_search_by_key(&partition, |lag| lag.partition) {
                let is_stalled = is_unmoved && is_stale(lagging.position_since);
                let cause = cause(&lagging.sample, position, is_stalled, lagging.was_silent);
                let (end, since) = (lagging.sample.end, lagging.complete_at.1);
                lags.insert(index, Lag { partition, position, end, since, cause });
            }
        }
        self.report(lags)
    }

    /// Forgets reported lags of partitions that have advanced since. One that still lags at the next sample is
    /// returned anew.
    pub(super) fn forget_advanced(&mut self, position: impl Fn(Partition) -> Offset) {
        self.reported.retain(|lag| position(lag.partition) <= lag.position);
    }

    /// Returns the lags if they differ from those reported last.
    fn report(&mut self, lags: Vec<Lag>) -> Option<Vec<Lag>> {
        let has_changed = self.reported != lags;
        self.reported.clone_from(&lags);
        has_changed.then_some(lags)
    }

    /// The time at which the next partition counts as lagging, if its position does not change before.
    pub(super) fn due(&self) -> Option<Instant> {
        let unreported = self.lagging.iter().filter(|(partition, _)| self.reported(**partition).is_none());
        unreported.filter_map(|(_, lagging)| lagging.due(self.stale_after)).min()
    }
}

impl Lag {
    /// Returns the lag at a later sample, with the start time of this one. While position and cause stay
    /// the same, keeps the end offset, too: a moving end offset alone is not a change to report.
    fn updated(&self, later: Self) -> Self {
        let is_unchanged = self.position == later.position && self.cause == later.cause;
        Self { since: self.since, end: if is_unchanged { self.end } else { later.end }, ..later }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::now;

    const STALE_AFTER: Duration = Duration::from_secs(10);

    fn sample(
        position: Offset,
        end: Option<Offset>,
        stable: Option<Offset>,
    ) -> Vec<(PartitionSample, Offset)> {
        vec![(PartitionSample { end, stable, ..PartitionSample::unknown(3) }, position)]
    }

    fn after((instant, time): TimePoint, seconds: u64) -> TimePoint {
        let seconds = Duration::from_secs(seconds);
        (instant + seconds, time + seconds)
    }

    fn causes(lags: Option<Vec<Lag>>) -> Option<Vec<LagCause>> {
        lags.map(|lags| lags.into_iter().map(|lag| lag.cause).collect())
    }

    #[test]
    fn a_lag_begins_when_the_reader_was_last_complete() {
        let start = now();
        let mut tracker = LagTracker::new(STALE_AFTER, start);
        let mut evaluate = |at, end| tracker.evaluate(sample(5, Some(end), None), after(start, at));
        assert_eq!(
            (evaluate(0, 5), evaluate(3, 5), evaluate(6, 9), evaluate(9, 9)),
            (None, None, None, None)
        );
        assert_eq!(evaluate(13, 9).unwrap()[0].since, after(start, 3).1);
        assert_eq!(evaluate(16, 11), None);
        assert_eq!(evaluate(19, 5), Some(vec![]));
        // However long a sample takes, one alone is not enough.
        assert_eq!(evaluate(99, 9), None);
    }

    #[test]
    fn a_stalled_partition_is_reported_once_with_its_cause_until_it_continues() {
        let start = now();
        let mut tracker = LagTracker::new(Duration::ZERO, start);
        let mut evaluate = |samples| causes(tracker.evaluate(samples, start));
        assert_eq!(evaluate(sample(5, Some(5), None)), None);
        // The rest may be on its way.
        assert_eq!(evaluate(sample(5, Some(9), Some(5))), None);
        assert_eq!(evaluate(sample(5, Some(9), Some(5))), Some(vec![LagCause::OpenTransaction]));
        assert_eq!(evaluate(sample(5, Some(10), Some(5))), None);
        assert_eq!(evaluate(sample(5, Some(10), Some(10))), Some(vec![LagCause::Unread]));
        assert_eq!(evaluate(sample(5, None, None)), Some(vec![LagCause::Silent]));
        assert_eq!(evaluate(sample(10, Some(10), None)), Some(vec![]));
    }

    #[test]
    fn a_slow_partition_is_reported_until_it_keeps_up() {
        let start = now();
        let mut tracker = LagTracker::new(STALE_AFTER, start);
        let mut evaluate = |at: u64, position, end| {
            let lags = tracker.evaluate(sample(position, Some(end), None), after(start, at));
            lags.map(|lags| lags.first().map(|lag| (lag.to_string(), lag.since)))
        };
        // Ten records are written per second, and each is applied six seconds later.
        for at in (0..=30).step_by(3) {
            assert_eq!(
                evaluate(at, i64::try_from(at).unwrap() * 10 - 60, i64::try_from(at).unwrap() * 10),
                None
            );
        }
        // Then the reader applies two per second.
        assert_eq!(evaluate(33, 246, 330), None);
        let reported = evaluate(36, 252, 360).unwrap().unwrap();
        assert!(reported.0.ends_with("applied too slowly"), "{reported:?}");
        assert_eq!(reported.1, after(start, 24).1);
        // The report keeps its text, although the position moves.
        assert_eq!(evaluate(39, 280, 390), Some(Some(reported)));
        // At 42 seconds, it has what was there at 39 seconds, and so it does not lag any more.
        assert_eq!((evaluate(42, 400, 420), evaluate(45, 420, 450)), (Some(None), None));
    }

    #[test]
    fn a_partition_that_was_silent_lags_until_it_has_what_came_meanwhile() {
        let start = now();
        let mut tracker = LagTracker::new(STALE_AFTER, start);
        let mut evaluate =
            |at, position, end| causes(tracker.evaluate(sample(position, end, None), after(start, at)));
        assert_eq!((evaluate(0, 5, Some(5)), evaluate(3, 5, None)), (None, None));
        assert_eq!(evaluate(20, 5, None), Some(vec![LagCause::Silent]));
        assert_eq!(evaluate(21, 5, Some(9)), Some(vec![LagCause::Recovering]));
        // More is written than it reads, but it has what was there a second ago.
        assert_eq!(evaluate(22, 9, Some(12)), Some(vec![]));
    }

    #[test]
    fn a_lag_is_reported_in_time_although_nobody_answers() {
        let start = now();
        let mut tracker = LagTracker::new(STALE_AFTER, start);
        let at = |seconds| after(start, seconds);
        let mut reported = Vec::new();
        // It was behind before the cluster fell silent: its end at 3 seconds is not reached.
        for (second, end) in [(0, Some(5)), (3, Some(9)), (6, None), (9, None)] {
            reported.push(tracker.evaluate(sample(5, end, None), at(second)));
        }
        assert_eq!(reported, [None, None, None, None]);
        assert_eq!(tracker.due(), Some(at(10).0), "it has everything that was there at 0 seconds");
        assert_eq!(tracker.evaluate_overdue(|_| 5, at(9)), None);
        let lags = tracker.evaluate_overdue(|_| 5, at(10)).unwrap();
        assert_eq!((lags[0].cause, lags[0].since), (LagCause::Silent, start.1));
        assert_eq!((tracker.due(), tracker.evaluate_overdue(|_| 5, at(11))), (None, None));

        // A partition that advances is not reported, and the cause of a slow one is not `Silent`.
        let mut tracker = LagTracker::new(STALE_AFTER, start);
        for (second, position, end) in [(0, 5, 5), (3, 5, 9), (6, 7, 12)] {
            assert_eq!(tracker.evaluate(sample(position, Some(end), None), at(second)), None);
        }
        assert_eq!(tracker.evaluate_overdue(|_| 9, at(10)), None);
        assert_eq!(tracker.due(), Some(at(13).0));
        let slow = tracker.evaluate_overdue(|_| 10, at(13)).unwrap();
        assert_eq!((slow[0].cause, slow[0].end), (LagCause::Slow, Some(12)));
    }

    #[test]
    fn a_short_silence_is_not_reported_once_the_cluster_answers_again() {
        let (a, b) =
            ([(0, 5, Some(5)), (3, 6, None), (6, 7, None), (9, 8, None)], [(0, 5, Some(5)), (7, 5, None)]);
        for samples in [&a[..], &b[..]] {
            let start = now();
            let mut tracker = LagTracker::new(STALE_AFTER, start);
            let evaluate = |tracker: &mut LagTracker, at, position, end| {
                causes(tracker.evaluate(sample(position, end, None), after(start, at)))
            };
            for &(at, position, end) in samples {
                assert_eq!(evaluate(&mut tracker, at, position, end), None);
            }
            // Others go on writing, and what is missing may arrive in a moment.
            assert_eq!(evaluate(&mut tracker, 12, 98, Some(99)), None);
            assert!(tracker.due().is_some_and(|due| due > after(start, 12).0));
            assert_eq!(evaluate(&mut tracker, 15, 107, Some(109)), None);
        }
    }

    #[test]
    fn a_partition_that_is_briefly_behind_is_not_reported() {
        let start = now();
        let mut tracker = LagTracker::new(Duration::from_secs(3600), start);
        for (at, position) in [(0, 1), (3, 2), (6, 2), (9, 2), (12, 3)] {
            assert_eq!(tracker.evaluate(sample(position, Some(9), None), after(start, at)), None);
        }
    }

    #[test]
    fn samples_in_another_order_are_not_a_change() {
        let start = now();
        let mut tracker = LagTracker::new(STALE_AFTER, start);
        let mut evaluate = |at, partitions: [Partition; 3]| {
            let end = Some(9);
            let sample = |partition| (PartitionSample { end, ..PartitionSample::unknown(partition) }, 5);
            tracker.evaluate(partitions.map(sample).into(), after(start, at))
        };
        assert_eq!(evaluate(5, [0, 1, 2]), None);
        assert_eq!(evaluate(10, [2, 0, 1]).map(|lags| lags.len()), Some(3));
        assert_eq!((evaluate(15, [1, 0, 2]), evaluate(20, [2, 1, 0])), (None, None));
    }

    #[test]
    fn a_long_lag_uses_bounded_memory() {
        let start = now();
        let mut tracker = LagTracker::new(50 * STALE_AFTER, start);
        for at in 0..1000 {
            let end = i64::try_from(at).unwrap() + 100;
            tracker.evaluate(sample(0, Some(end), None), after(start, at));
        }
        assert!(tracker.lagging[&3].ends.len() <= MAX_ENDS as usize + 1);
    }
}
