//! Whether a reading keeps up with the ends of its partitions, from one look to the
//! next.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use crate::log::{Lag, LagCause, Offset, Partition};

/// A partition at one look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) partition: Partition,
    /// How far it was read before its ends were asked for.
    pub(super) position: Offset,
    /// Where it ends; `None` if no broker told.
    pub(super) end: Option<Offset>,
    /// Where open transactions let readers go; `None` if nobody asked.
    pub(super) stable: Option<Offset>,
}

impl Seen {
    /// Whether there is more than was read, or may be.
    pub(super) fn is_behind(&self) -> bool {
        self.end.is_none_or(|end| self.position < end)
    }

    fn cause(&self, stands: bool) -> LagCause {
        match (self.end, self.stable) {
            (None, _) => LagCause::Silent,
            (Some(end), Some(stable)) if stable < end && self.position >= stable => LagCause::OpenTransaction,
            _ if stands => LagCause::Unread,
            _ => LagCause::Slow,
        }
    }
}

/// When a look was taken, and that for people.
type Moment = (Instant, SystemTime);

/// A partition that is behind.
#[derive(Debug)]
struct Behind {
    position: Offset,
    /// When it was last seen not to be there.
    stands: Moment,
    /// The last moment of which it has everything that was there.
    complete: Moment,
    /// Where it ended at later looks.
    ends: VecDeque<(Option<Offset>, Moment)>,
}

impl Behind {
    fn since(moment: Moment, position: Offset) -> Self {
        Self { position, stands: moment, complete: moment, ends: VecDeque::new() }
    }

    /// It is read up to here by now; at the look before, it may not have been.
    fn reach(&mut self, position: Offset, before: Moment) {
        if position != self.position {
            (self.position, self.stands) = (position, before);
        }
        let reached = |(end, _): &(Option<Offset>, Moment)| end.is_some_and(|end| end <= position);
        if let Some(last) = self.ends.iter().rposition(reached) {
            self.complete = self.ends.drain(..=last).next_back().map_or(self.complete, |(_, moment)| moment);
        }
    }

    /// It ends here; of the ends that are older than `patience` one is enough.
    fn end_at(&mut self, end: Option<Offset>, asked: Moment, patience: Duration) {
        self.ends.push_back((end, asked));
        let is_old = |(_, moment): &(Option<Offset>, Moment)| asked.0.duration_since(moment.0) >= patience;
        while self.ends.get(1).is_some_and(is_old) {
            self.ends.pop_front();
        }
    }
}

/// What is known of the partitions of one reading.
#[derive(Debug, Default)]
pub(super) struct Pace {
    behind: HashMap<Partition, Behind>,
    /// When the last look was taken.
    looked: Option<Moment>,
    told: Vec<Lag>,
}

impl Pace {
    /// Whether a partition that is behind stood where it stands at the last look, too.
    pub(super) fn stood(&self, seen: &Seen) -> bool {
        self.behind.get(&seen.partition).is_some_and(|behind| behind.position == seen.position)
    }

    /// Takes a look at what was asked for at some time; tells the partitions that lag, if
    /// that is news: those that do not have everything yet that was there so long ago. One end
    /// that is not reached is not enough, however long a look takes: it takes another look to
    /// see that it was not reached.
    pub(super) fn look(&mut self, seen: &[Seen], asked: Moment, patience: Duration) -> Option<Vec<Lag>> {
        let before = self.looked.replace(asked).unwrap_or(asked);
        let is_over = |moment: Moment| asked.0.duration_since(moment.0) >= patience;
        let mut known = std::mem::take(&mut self.behind);
        let mut lags = Vec::new();
        for seen in seen.iter().filter(|seen| seen.is_behind()) {
            let Seen { partition, position, end, .. } = *seen;
            let mut behind = known.remove(&partition).unwrap_or_else(|| Behind::since(before, position));
            behind.reach(position, before);
            if is_over(behind.complete) && (end.is_none() || !behind.ends.is_empty()) {
                let cause = seen.cause(is_over(behind.stands));
                lags.push(Lag { partition, position, end, since: behind.complete.1, cause });
            }
            behind.end_at(end, asked, patience);
            self.behind.insert(partition, behind);
        }
        // That the end moves on is no news.
        let is_news = !self.told.iter().map(news).eq(lags.iter().map(news));
        self.told.clone_from(&lags);
        is_news.then_some(lags)
    }
}

fn news(lag: &Lag) -> (Partition, Offset, SystemTime, LagCause) {
    (lag.partition, lag.position, lag.since, lag.cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn seen(position: Offset, end: Option<Offset>, stable: Option<Offset>) -> [Seen; 1] {
        [Seen { partition: 3, position, end, stable }]
    }

    fn now() -> Moment {
        (Instant::now(), SystemTime::now())
    }

    fn after((instant, time): Moment, seconds: u64) -> Moment {
        let seconds = Duration::from_secs(seconds);
        (instant + seconds, time + seconds)
    }

    fn causes(news: Option<Vec<Lag>>) -> Option<Vec<LagCause>> {
        news.map(|lags| lags.into_iter().map(|lag| lag.cause).collect())
    }

    #[test]
    fn it_lags_since_it_was_last_seen_not_to() {
        let (mut pace, start) = (Pace::default(), now());
        let mut look = |at, end| pace.look(&seen(5, Some(end), None), after(start, at), PATIENCE);
        assert_eq!((look(0, 5), look(3, 5), look(6, 9), look(9, 9)), (None, None, None, None));
        assert_eq!(look(13, 9).unwrap()[0].since, after(start, 3).1);
        assert_eq!(look(16, 11), None);
        assert_eq!(look(19, 5), Some(vec![]));
        // However long a look takes, one is not enough.
        assert_eq!(look(99, 9), None);
    }

    #[test]
    fn what_stands_is_told_once_with_its_cause_and_when_it_goes_on() {
        let mut pace = Pace::default();
        let start = now();
        let mut look = |seen: [Seen; 1]| causes(pace.look(&seen, start, Duration::ZERO));
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
        let (mut pace, start) = (Pace::default(), now());
        let mut look = |at: u64, position, end| {
            let news = pace.look(&seen(position, Some(end), None), after(start, at), PATIENCE);
            news.map(|lags| lags.first().map(|lag| (lag.cause, lag.since)))
        };
        // Ten are written a second. What is there is read within six seconds.
        for at in (0..=30).step_by(3) {
            assert_eq!(look(at, i64::try_from(at).unwrap() * 10 - 60, i64::try_from(at).unwrap() * 10), None);
        }
        // Then two a second are read.
        assert_eq!(look(33, 246, 330), None);
        let told = look(36, 252, 360).unwrap().unwrap();
        assert_eq!(told, (LagCause::Slow, after(start, 24).1));
        assert!(look(39, 258, 390).unwrap().is_some());
        // It has what was there at 39 seconds, and by and by all.
        assert_eq!((look(42, 400, 420), look(45, 420, 450)), (Some(None), None));
    }

    #[test]
    fn what_was_silent_lags_until_it_has_what_came_meanwhile() {
        let (mut pace, start) = (Pace::default(), now());
        let mut look =
            |at, position, end| causes(pace.look(&seen(position, end, None), after(start, at), PATIENCE));
        assert_eq!((look(0, 5, Some(5)), look(3, 5, None)), (None, None));
        assert_eq!(look(20, 5, None), Some(vec![LagCause::Silent]));
        assert_eq!(look(21, 5, Some(9)), Some(vec![LagCause::Unread]));
        // More comes than it takes, and it has what was there a second ago.
        assert_eq!(look(22, 9, Some(12)), Some(vec![]));
    }

    #[test]
    fn what_is_behind_for_a_moment_is_not_told() {
        let mut pace = Pace::default();
        let patience = Duration::from_secs(3600);
        for position in [1, 2, 2, 2, 3] {
            let seen = seen(position, Some(9), None);
            assert_eq!(pace.look(&seen, now(), patience), None);
            assert!(pace.stood(&seen[0]));
        }
    }

    #[test]
    fn what_lags_for_long_takes_no_more_memory() {
        let (mut pace, start) = (Pace::default(), now());
        for at in 0..1000 {
            let end = i64::try_from(at).unwrap() + 100;
            pace.look(&seen(0, Some(end), None), after(start, at), PATIENCE);
        }
        assert!(pace.behind[&3].ends.len() <= 11);
    }
}
