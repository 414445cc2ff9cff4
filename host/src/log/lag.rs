//! Whether a reading keeps up with the ends of its partitions, from one look to the
//! next.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use crate::log::{Lag, LagCause, Offset, Partition};

/// How many of the ends of as long as a partition may lag are kept, at most.
const ENDS: u32 = 16;

/// A partition at one look.
#[derive(Debug, Clone, Copy)]
pub(in crate::log) struct Seen {
    pub(in crate::log) partition: Partition,
    /// How far it was handed on before its ends were asked for.
    pub(in crate::log) read: Offset,
    /// How far of that it was applied.
    pub(in crate::log) position: Offset,
    /// Where it ends; `None` if no broker told.
    pub(in crate::log) end: Option<Offset>,
    /// Where open transactions let readers go; `None` if nobody asked.
    pub(in crate::log) stable: Option<Offset>,
}

impl Seen {
    /// A partition of which nothing is known.
    pub(in crate::log) fn unread(partition: Partition) -> Self {
        Self { partition, read: 0, position: 0, end: None, stable: None }
    }

    /// Whether there is more than was applied, or may be.
    pub(in crate::log) fn is_behind(&self) -> bool {
        self.end.is_none_or(|end| self.position < end)
    }

    /// Whether there is more to read, though all that was read is applied, and no transaction hides
    /// it.
    #[cfg(feature = "kafka")]
    pub(in crate::log) fn is_waiting(&self) -> bool {
        let visible = [self.end, self.stable].into_iter().flatten().min();
        self.read <= self.position && visible.is_some_and(|visible| self.read < visible)
    }

    fn cause(&self, stands: bool, was_silent: bool) -> LagCause {
        match (self.end, self.stable) {
            (None, _) => LagCause::Silent,
            _ if was_silent => LagCause::Recovering,
            (Some(end), Some(stable)) if stable < end && self.position >= stable => LagCause::OpenTransaction,
            // What was handed on and is not applied is up to its codec and its table.
            _ if stands && self.read <= self.position => LagCause::Unread,
            _ => LagCause::Slow,
        }
    }
}

/// When a look was taken, and that for people.
pub(in crate::log) type SampleTime = (Instant, SystemTime);

pub(in crate::log) fn now() -> SampleTime {
    (Instant::now(), SystemTime::now())
}

/// A partition that is behind.
#[derive(Debug)]
struct Behind {
    position: Offset,
    /// When it was last seen not to be there.
    stands: SampleTime,
    /// The last moment of which it has everything that was there.
    complete: SampleTime,
    /// Where it ended at later looks.
    ends: VecDeque<(Option<Offset>, SampleTime)>,
}

impl Behind {
    fn since(moment: SampleTime, position: Offset) -> Self {
        Self { position, stands: moment, complete: moment, ends: VecDeque::new() }
    }

    /// It is applied up to here by now; at the look before, it may not have been.
    fn reach(&mut self, position: Offset, before: SampleTime) {
        if position != self.position {
            (self.position, self.stands) = (position, before);
        }
        let reached = |(end, _): &(Option<Offset>, SampleTime)| end.is_some_and(|end| end <= position);
        if let Some(last) = self.ends.iter().rposition(reached) {
            self.complete = self.ends.drain(..=last).next_back().map_or(self.complete, |(_, moment)| moment);
        }
    }

    /// It ends here. Of the ends that are older than `patience` one is enough, and of the
    /// others some.
    fn end_at(&mut self, end: Option<Offset>, asked: SampleTime, patience: Duration) {
        let age = |moment: &SampleTime| asked.0.duration_since(moment.0);
        match self.ends.back_mut() {
            // Since when nobody tells.
            Some((None, _)) if end.is_none() => {}
            Some((last, moment)) if *last == end => *moment = asked,
            Some((_, moment)) if age(moment) < patience / ENDS => {}
            _ => self.ends.push_back((end, asked)),
        }
        while self.ends.get(1).is_some_and(|(_, moment)| age(moment) >= patience) {
            self.ends.pop_front();
        }
    }
}

/// What is known of the partitions of one reading.
#[derive(Debug)]
pub(in crate::log) struct Pace {
    behind: HashMap<Partition, Behind>,
    /// When the last look was taken.
    looked: SampleTime,
    /// What was told last, by partition.
    told: Vec<Lag>,
}

impl Pace {
    /// Of a reading that begins at some time.
    pub(in crate::log) fn since(moment: SampleTime) -> Self {
        Self { behind: HashMap::new(), looked: moment, told: Vec::new() }
    }

    fn told(&self, partition: Partition) -> Option<&Lag> {
        let index = self.told.binary_search_by_key(&partition, |lag| lag.partition).ok()?;
        self.told.get(index)
    }

    /// Takes a look at what was asked for at some time; tells the partitions that lag, if
    /// that is news: those that do not have everything yet that was there so long ago. One end
    /// that is not reached is not enough, however long a look takes: it takes another look to
    /// see that it was not reached. So does a silence that was short.
    pub(in crate::log) fn look(
        &mut self,
        seen: &mut [Seen],
        asked: SampleTime,
        patience: Duration,
    ) -> Option<Vec<Lag>> {
        seen.sort_unstable_by_key(|seen| seen.partition);
        let before = std::mem::replace(&mut self.looked, asked);
        let is_over = |moment: SampleTime| asked.0.duration_since(moment.0) >= patience;
        let mut known = std::mem::take(&mut self.behind);
        let mut lags = Vec::new();
        for seen in seen.iter().filter(|seen| seen.is_behind()) {
            let Seen { partition, position, end, .. } = *seen;
            let mut behind = known.remove(&partition).unwrap_or_else(|| Behind::since(before, position));
            let stood = behind.position == position;
            behind.reach(position, before);
            let told = self.told(partition);
            let told_silent = told.is_some_and(|told| told.cause == LagCause::Silent);
            // Where it ends is known again: what came meanwhile may be on its way.
            let was_silent = behind.ends.back().is_some_and(|(end, _)| end.is_none());
            let missed = |&(end, moment): &(Option<Offset>, SampleTime)| end.is_some() || is_over(moment);
            if is_over(behind.complete) && (end.is_none() || told_silent || behind.ends.iter().any(missed)) {
                let cause = seen.cause(stood && is_over(behind.stands), was_silent);
                let lag = Lag { partition, position, end, since: behind.complete.1, cause };
                lags.push(told.map_or(lag.clone(), |told| told.then(lag)));
            }
            behind.end_at(end, asked, patience);
            self.behind.insert(partition, behind);
        }
        let is_news = self.told != lags;
        self.told.clone_from(&lags);
        is_news.then_some(lags)
    }
}

impl Pace {
    /// When the first partition lags that does not get on until then.
    pub(in crate::log) fn due(&self, patience: Duration) -> Option<Instant> {
        let untold = self.behind.iter().filter(|(partition, _)| self.told(**partition).is_none());
        untold.filter_map(|(_, behind)| behind.due(patience)).min()
    }
}

/// What only a log needs whose answers may fail to come.
#[cfg(feature = "kafka")]
impl Pace {
    /// Whether it may be that a transaction holds a partition up: it stood where it stands at
    /// the last look, too, or lags, or will soon.
    pub(in crate::log) fn is_suspect(&self, seen: &Seen, asked: SampleTime, patience: Duration) -> bool {
        let is_suspect = |behind: &Behind| {
            let missed = behind.ends.front().map(|(_, moment)| asked.0.duration_since(moment.0));
            behind.position == seen.position || missed.is_some_and(|age| age >= patience / 2)
        };
        self.told(seen.partition).is_some() || self.behind.get(&seen.partition).is_some_and(is_suspect)
    }

    /// The partitions that were told to stand without a good reason, with what looks like one.
    pub(in crate::log) fn standing(&self) -> Vec<(Partition, LagCause)> {
        let stands =
            |lag: &&Lag| matches!(lag.cause, LagCause::Silent | LagCause::Recovering | LagCause::Unread);
        self.told.iter().filter(stands).map(|lag| (lag.partition, lag.cause)).collect()
    }

    /// Tells which partitions lag by now, though nobody was asked, if that is news.
    pub(in crate::log) fn overdue(
        &mut self,
        seen: &[Seen],
        now: SampleTime,
        patience: Duration,
    ) -> Option<Vec<Lag>> {
        let before = self.looked;
        let mut lags = self.told.clone();
        for &seen in seen {
            let Some(behind) = self.behind.get_mut(&seen.partition) else { continue };
            let stood = behind.position == seen.position;
            behind.reach(seen.position, before);
            let is_over = |moment: SampleTime| now.0.saturating_duration_since(moment.0) >= patience;
            if behind.due(patience).is_none_or(|due| due > now.0) {
                continue;
            }
            if let Err(index) = lags.binary_search_by_key(&seen.partition, |lag| lag.partition) {
                let end = behind.ends.iter().rev().find_map(|(end, _)| *end);
                let was_silent = behind.ends.back().is_some_and(|(end, _)| end.is_none());
                let seen = Seen { end: end.filter(|_| !was_silent), ..seen };
                let cause = seen.cause(stood && is_over(behind.stands), false);
                let (partition, position, since) = (seen.partition, seen.position, behind.complete.1);
                lags.insert(index, Lag { partition, position, end: seen.end, since, cause });
            }
        }
        let is_news = self.told != lags;
        self.told.clone_from(&lags);
        is_news.then_some(lags)
    }
}

impl Behind {
    /// When it lags, if it does not get on until then: it takes an end that was not reached when
    /// it was told, or a silence that is not short.
    fn due(&self, patience: Duration) -> Option<Instant> {
        let first = self.ends.front()?;
        let missed = self.ends.iter().any(|(end, _)| end.is_some());
        Some(if missed { self.complete.0 } else { first.1.0 } + patience)
    }
}

impl Lag {
    /// This lag at a later look: since when it lags is told once, and that the end of one that
    /// stands moves on is no news.
    fn then(&self, later: Self) -> Self {
        let stands = self.position == later.position && self.cause == later.cause;
        Self { since: self.since, end: if stands { self.end } else { later.end }, ..later }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn seen(position: Offset, end: Option<Offset>, stable: Option<Offset>) -> [Seen; 1] {
        [Seen { position, end, stable, ..Seen::unread(3) }]
    }

    fn after((instant, time): SampleTime, seconds: u64) -> SampleTime {
        let seconds = Duration::from_secs(seconds);
        (instant + seconds, time + seconds)
    }

    fn causes(news: Option<Vec<Lag>>) -> Option<Vec<LagCause>> {
        news.map(|lags| lags.into_iter().map(|lag| lag.cause).collect())
    }

    #[test]
    fn it_lags_since_it_was_last_seen_not_to() {
        let start = now();
        let mut pace = Pace::since(start);
        let mut look = |at, end| pace.look(&mut seen(5, Some(end), None), after(start, at), PATIENCE);
        assert_eq!((look(0, 5), look(3, 5), look(6, 9), look(9, 9)), (None, None, None, None));
        assert_eq!(look(13, 9).unwrap()[0].since, after(start, 3).1);
        assert_eq!(look(16, 11), None);
        assert_eq!(look(19, 5), Some(vec![]));
        // However long a look takes, one is not enough.
        assert_eq!(look(99, 9), None);
    }

    #[test]
    fn what_stands_is_told_once_with_its_cause_and_when_it_goes_on() {
        let start = now();
        let mut pace = Pace::since(start);
        let mut look = |mut seen: [Seen; 1]| causes(pace.look(&mut seen, start, Duration::ZERO));
        assert_eq!(look(seen(5, Some(5), None)), None);
        // It may be on its way.
        assert_eq!(look(seen(5, Some(9), Some(5))), None);
        assert_eq!(look(seen(5, Some(9), Some(5))), Some(vec![LagCause::OpenTransaction]));
        assert_eq!(look(seen(5, Some(10), Some(5))), None);
        assert_eq!(look(seen(5, Some(10), Some(10))), Some(vec![LagCause::Unread]));
        assert_eq!(look(seen(5, None, None)), Some(vec![LagCause::Silent]));
        assert_eq!(look(seen(10, Some(10), None)), Some(vec![]));
    }

    #[test]
    fn what_moves_and_falls_behind_is_told_until_it_keeps_up() {
        let start = now();
        let mut pace = Pace::since(start);
        let mut look = |at: u64, position, end| {
            let news = pace.look(&mut seen(position, Some(end), None), after(start, at), PATIENCE);
            news.map(|lags| lags.first().map(|lag| (lag.to_string(), lag.since)))
        };
        // Ten are written a second. What is there is read within six seconds.
        for at in (0..=30).step_by(3) {
            assert_eq!(look(at, i64::try_from(at).unwrap() * 10 - 60, i64::try_from(at).unwrap() * 10), None);
        }
        // Then two a second are read.
        assert_eq!(look(33, 246, 330), None);
        let told = look(36, 252, 360).unwrap().unwrap();
        assert!(told.0.ends_with("applied too slowly"), "{told:?}");
        assert_eq!(told.1, after(start, 24).1);
        // It is told in the same words, although it moves.
        assert_eq!(look(39, 280, 390), Some(Some(told)));
        // It has what was there at 39 seconds, and by and by all.
        assert_eq!((look(42, 400, 420), look(45, 420, 450)), (Some(None), None));
    }

    #[test]
    fn what_was_silent_lags_until_it_has_what_came_meanwhile() {
        let start = now();
        let mut pace = Pace::since(start);
        let mut look =
            |at, position, end| causes(pace.look(&mut seen(position, end, None), after(start, at), PATIENCE));
        assert_eq!((look(0, 5, Some(5)), look(3, 5, None)), (None, None));
        assert_eq!(look(20, 5, None), Some(vec![LagCause::Silent]));
        assert_eq!(look(21, 5, Some(9)), Some(vec![LagCause::Recovering]));
        // More comes than it takes, and it has what was there a second ago.
        assert_eq!(look(22, 9, Some(12)), Some(vec![]));
    }

    #[test]
    fn what_lags_is_told_in_time_though_nobody_answers() {
        let start = now();
        let mut pace = Pace::since(start);
        let at = |seconds| after(start, seconds);
        let mut told = Vec::new();
        // It was behind before the cluster fell silent: its end at 3 seconds is not reached.
        for (second, end) in [(0, Some(5)), (3, Some(9)), (6, None), (9, None)] {
            told.push(pace.look(&mut seen(5, end, None), at(second), PATIENCE));
        }
        assert_eq!(told, [None, None, None, None]);
        assert_eq!(pace.due(PATIENCE), Some(at(10).0), "all that was there at 0 seconds it has");
        assert_eq!(pace.overdue(&seen(5, None, None), at(9), PATIENCE), None);
        let lags = pace.overdue(&seen(5, None, None), at(10), PATIENCE).unwrap();
        assert_eq!((lags[0].cause, lags[0].since), (LagCause::Silent, start.1));
        assert_eq!((pace.due(PATIENCE), pace.overdue(&seen(5, None, None), at(11), PATIENCE)), (None, None));

        // What gets on is not told, and what is slow is not called silent.
        let mut pace = Pace::since(start);
        for (second, position, end) in [(0, 5, 5), (3, 5, 9), (6, 7, 12)] {
            assert_eq!(pace.look(&mut seen(position, Some(end), None), at(second), PATIENCE), None);
        }
        assert_eq!(pace.overdue(&seen(9, None, None), at(10), PATIENCE), None);
        assert_eq!(pace.due(PATIENCE), Some(at(13).0));
        let slow = pace.overdue(&seen(10, None, None), at(13), PATIENCE).unwrap();
        assert_eq!((slow[0].cause, slow[0].end), (LagCause::Slow, Some(12)));
    }

    #[test]
    fn a_short_silence_is_not_told_of_what_was_read_behind_it() {
        let (a, b) =
            ([(0, 5, Some(5)), (3, 6, None), (6, 7, None), (9, 8, None)], [(0, 5, Some(5)), (7, 5, None)]);
        for looks in [&a[..], &b[..]] {
            let start = now();
            let mut pace = Pace::since(start);
            let mut look = |at, position, end| {
                causes(pace.look(&mut seen(position, end, None), after(start, at), PATIENCE))
            };
            assert!(looks.iter().all(|&(at, position, end)| look(at, position, end).is_none()));
            // Others write on.
            assert_eq!(look(12, 98, Some(99)), None);
            assert_eq!(look(15, 107, Some(109)), None);
        }
    }

    #[test]
    fn what_stands_is_asked_for_anew_when_it_is_silent_and_when_somebody_answers() {
        let start = now();
        let mut pace = Pace::since(start);
        let mut look = |at, end| {
            pace.look(&mut seen(5, end, None), after(start, at), PATIENCE);
            pace.standing()
        };
        assert_eq!(look(3, None), []);
        assert_eq!(look(12, None), [(3, LagCause::Silent)]);
        assert_eq!(look(13, Some(9)), [(3, LagCause::Recovering)]);
        assert_eq!(look(16, Some(9)), [(3, LagCause::Unread)]);
    }

    #[test]
    fn what_is_behind_for_a_moment_is_not_told() {
        let mut pace = Pace::since(now());
        let patience = Duration::from_secs(3600);
        for position in [1, 2, 2, 2, 3] {
            let mut seen = seen(position, Some(9), None);
            assert_eq!(pace.look(&mut seen, now(), patience), None);
            assert!(pace.is_suspect(&seen[0], now(), patience));
        }
    }

    #[test]
    fn partitions_that_stand_are_no_news_in_whatever_order_they_are_seen() {
        let start = now();
        let mut pace = Pace::since(start);
        let mut look = |at, partitions: [Partition; 3]| {
            let seen = |partition| Seen { partition, ..seen(5, Some(9), None)[0] };
            pace.look(&mut partitions.map(seen), after(start, at), PATIENCE)
        };
        assert_eq!(look(5, [0, 1, 2]), None);
        assert_eq!(look(10, [2, 0, 1]).map(|lags| lags.len()), Some(3));
        assert_eq!((look(15, [1, 0, 2]), look(20, [2, 1, 0])), (None, None));
    }

    #[test]
    fn what_lags_for_long_takes_no_more_memory() {
        let start = now();
        let mut pace = Pace::since(start);
        for at in 0..1000 {
            let end = i64::try_from(at).unwrap() + 100;
            pace.look(&mut seen(0, Some(end), None), after(start, at), 50 * PATIENCE);
        }
        assert!(pace.behind[&3].ends.len() <= ENDS as usize + 1);
    }
}
