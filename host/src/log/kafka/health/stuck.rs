//! Whether a client gets nothing although there is something: then another takes its place.
//!
//! Clients have stopped for ever after a broker was frozen, without a word. Whatever the cause,
//! it shows: the cluster answers others, and nothing comes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::log::{Offset, Partition};

/// The longest time between two replacements that brought nothing.
const RARELY: Duration = Duration::from_secs(300);

/// What may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::kafka) enum Cure {
    /// It should learn anew who leads the partitions.
    Refresh,
    /// Another client should go on.
    Replace,
}

/// What was seen of a client at each look at which the cluster answered.
#[derive(Debug, Default)]
pub(in crate::log::kafka) struct Stuck {
    /// Where partitions stood at the last look that had more to read.
    stood: HashMap<Partition, Offset>,
    /// At how many looks in a row some partition stood where it was.
    looks: u32,
    /// When it was replaced, and how long to wait before that is tried again.
    replaced: Option<(Instant, Duration)>,
}

impl Stuck {
    /// Takes a look; `waiting` are the partitions that have more than was read, each with how far
    /// it was read.
    pub(in crate::log::kafka) fn look(
        &mut self,
        waiting: impl IntoIterator<Item = (Partition, Offset)>,
        now: Instant,
        patience: Duration,
    ) -> Option<Cure> {
        let waiting: HashMap<_, _> = waiting.into_iter().collect();
        let stands = waiting.iter().any(|(partition, at)| self.stood.get(partition) == Some(at));
        self.stood = waiting;
        if !stands {
            (self.looks, self.replaced) = (0, None);
            return None;
        }
        self.looks += 1;
        if self.looks == 1 {
            return Some(Cure::Refresh);
        }
        let next = match self.replaced {
            Some((when, pause)) if now.saturating_duration_since(when) < pause => return None,
            Some((_, pause)) => (pause * 2).min(RARELY),
            None => patience,
        };
        self.replaced = Some((now, next));
        Some(Cure::Replace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_is_refreshed_then_replaced_less_and_less_often() {
        let (start, patience) = (Instant::now(), Duration::from_secs(10));
        let mut stuck = Stuck::default();
        let mut look = |seconds, at| stuck.look([(0, at)], start + Duration::from_secs(seconds), patience);
        assert_eq!((look(0, 5), look(3, 5), look(6, 5)), (None, Some(Cure::Refresh), Some(Cure::Replace)));
        assert_eq!((look(9, 5), look(15, 5), look(16, 5)), (None, None, Some(Cure::Replace)));
        assert_eq!((look(30, 5), look(36, 5)), (None, Some(Cure::Replace)));
        // It goes on.
        assert_eq!((look(39, 6), look(42, 6)), (None, Some(Cure::Refresh)));
    }

    #[test]
    fn what_moves_or_has_everything_is_left_alone() {
        let (now, patience) = (Instant::now(), Duration::from_secs(10));
        let mut stuck = Stuck::default();
        for offset in 0..9 {
            assert_eq!(stuck.look([(0, offset)], now, patience), None);
            assert_eq!(stuck.look([], now, patience), None);
        }
    }
}
