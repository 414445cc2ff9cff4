//! Whether a reading keeps up with the ends of its partitions, from one look to the
//! next.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use crate::log::{Offset, Partition, Standstill, StandstillCause};

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

    fn cause(&self) -> StandstillCause {
        match (self.end, self.stable) {
            (None, _) => StandstillCause::Silent,
            (Some(end), Some(stable)) if stable < end && self.position >= stable => {
                StandstillCause::OpenTransaction
            }
            _ => StandstillCause::Unread,
        }
    }
}

/// What is known of the partitions of one reading.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Partitions that are behind: where they stand, since when, and that for people.
    standing: HashMap<Partition, (Offset, Instant, SystemTime)>,
    /// When the last look was taken.
    looked: Option<(Instant, SystemTime)>,
    told: Vec<Standstill>,
}

impl Pace {
    /// Whether a partition stood where it stands at the last look, too.
    pub(super) fn stood(&self, seen: &Seen) -> bool {
        self.standing.get(&seen.partition).is_some_and(|standing| standing.0 == seen.position)
    }

    /// Takes a look at what was asked for at some time; what stands still for longer than
    /// `patience`, and at two looks, if that is news. At the look before, it did not stand.
    pub(super) fn look(
        &mut self,
        seen: &[Seen],
        asked: (Instant, SystemTime),
        patience: Duration,
    ) -> Option<Vec<Standstill>> {
        let (now, _) = asked;
        let (before, then) = self.looked.replace(asked).unwrap_or(asked);
        let mut standing = HashMap::new();
        let mut standstills = Vec::new();
        for seen in seen.iter().filter(|seen| seen.is_behind()) {
            let Seen { partition, position, end, .. } = *seen;
            let known = self.standing.get(&partition).filter(|known| known.0 == position);
            let (_, instant, since) = known.copied().unwrap_or((position, before, then));
            standing.insert(partition, (position, instant, since));
            if known.is_some() && now.duration_since(instant) >= patience {
                standstills.push(Standstill { partition, position, end, since, cause: seen.cause() });
            }
        }
        self.standing = standing;
        // That the end moves on is no news.
        let is_news = !self.told.iter().map(news).eq(standstills.iter().map(news));
        self.told.clone_from(&standstills);
        is_news.then_some(standstills)
    }
}

fn news(standstill: &Standstill) -> (Partition, Offset, StandstillCause) {
    (standstill.partition, standstill.position, standstill.cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(position: Offset, end: Option<Offset>, stable: Option<Offset>) -> [Seen; 1] {
        [Seen { partition: 3, position, end, stable }]
    }

    fn now() -> (Instant, SystemTime) {
        (Instant::now(), SystemTime::now())
    }

    #[test]
    fn it_stands_since_it_was_last_seen_not_to() {
        let (mut pace, patience) = (Pace::default(), Duration::from_secs(10));
        let (start, today) = now();
        let mut look = |after, end| {
            let after = Duration::from_secs(after);
            pace.look(&seen(5, Some(end), None), (start + after, today + after), patience)
        };
        assert_eq!((look(0, 5), look(3, 5), look(6, 9), look(9, 9)), (None, None, None, None));
        assert_eq!(look(13, 9).unwrap()[0].since, today + Duration::from_secs(3));
        assert_eq!(look(16, 9), None);
        assert_eq!(look(19, 5), Some(vec![]));
        // However long a look takes, one is not enough.
        assert_eq!(look(99, 9), None);
    }

    fn causes(news: Option<Vec<Standstill>>) -> Option<Vec<StandstillCause>> {
        news.map(|standstills| standstills.into_iter().map(|standstill| standstill.cause).collect())
    }

    #[test]
    fn what_stands_is_told_once_with_its_cause_and_when_it_goes_on() {
        let mut pace = Pace::default();
        let mut look = |seen: [Seen; 1]| causes(pace.look(&seen, now(), Duration::ZERO));
        assert_eq!(look(seen(5, Some(5), None)), None);
        // It may be on its way.
        assert_eq!(look(seen(5, Some(9), Some(5))), None);
        assert_eq!(look(seen(5, Some(9), Some(5))), Some(vec![StandstillCause::OpenTransaction]));
        assert_eq!(look(seen(5, Some(10), Some(5))), None);
        assert_eq!(look(seen(5, Some(10), Some(10))), Some(vec![StandstillCause::Unread]));
        assert_eq!(look(seen(5, None, None)), Some(vec![StandstillCause::Silent]));
        assert_eq!(look(seen(10, Some(10), None)), Some(vec![]));
    }

    #[test]
    fn what_moves_or_stands_for_a_moment_is_not_told() {
        let mut pace = Pace::default();
        let patience = Duration::from_secs(3600);
        for position in [1, 2, 2, 2, 3] {
            let seen = seen(position, Some(9), None);
            assert_eq!(pace.look(&seen, now(), patience), None);
            assert!(pace.stood(&seen[0]));
        }
    }
}
