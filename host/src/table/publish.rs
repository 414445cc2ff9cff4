//! What a table tells its watchers, and the last of it for those who come back.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::broadcast;

use crate::table::entry::Notice;
use crate::table::status::Status;
use crate::table::view::View;
use crate::table::watch::{Cause, Change, WatchToken};

/// How many publications a watcher may lag behind before it is told that it
/// missed some.
const WATCH_LAG: usize = 1024;

/// How many changes are kept for watchers that resume, from the first watcher on: with
/// the entries before and after, some MiB at most where values are small.
pub const CHANGES_KEPT: usize = 10_000;

/// Something about one key.
#[derive(Debug, Clone)]
pub(super) enum Told {
    Change(Change),
    Rejected { key: Box<str>, group: Option<Box<str>>, notice: Notice },
}

/// What is told at once.
#[derive(Debug, Clone)]
pub(super) enum News {
    Changes(Arc<[Told]>),
    Status(Status),
    Generation(u64),
}

impl News {
    /// What leads from one view's entries to another's.
    pub(super) fn difference(old: &View, new: &View) -> Self {
        let gone = old.rows().iter().filter(|entry| new.rows().get(entry.key()).is_none());
        let gone = gone.map(|entry| Change::deleted(entry.clone(), entry.origin(), Cause::Generation));
        let came = new.rows().iter().filter_map(|entry| {
            let before = old.rows().get(entry.key());
            let same = before.is_some_and(|before| before.json() == entry.json());
            (!same).then(|| Change::set(before.cloned(), entry.clone(), Cause::Generation))
        });
        Self::Changes(gone.chain(came).map(Told::Change).collect())
    }

    /// How much of the ring it takes.
    fn weight(&self) -> usize {
        match self {
            Self::Changes(changes) => changes.len(),
            Self::Status(_) | Self::Generation(_) => 1,
        }
    }
}

/// News with their number.
#[derive(Debug, Clone)]
pub(super) struct Publication {
    pub(super) number: u64,
    pub(super) news: News,
}

/// The way to all watchers, and the ring of what they were told last.
#[derive(Debug)]
pub(super) struct Publisher {
    /// Which table this is.
    table: u64,
    sender: broadcast::Sender<Publication>,
    /// Whether anybody ever watched: before that, nothing is kept.
    is_on: bool,
    ring: VecDeque<Publication>,
    /// Changes in the ring.
    weight: usize,
    /// The next publication's number.
    next: u64,
}

impl Publisher {
    pub(super) fn new() -> Self {
        Self {
            table: uuid::Uuid::new_v4().as_u64_pair().0,
            sender: broadcast::channel(WATCH_LAG).0,
            is_on: false,
            ring: VecDeque::new(),
            weight: 0,
            next: 0,
        }
    }

    /// Whether anybody is to be told.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Tells all who watch, and keeps it for who may resume.
    pub(super) fn publish(&mut self, news: News) {
        if !self.is_on {
            return;
        }
        let publication = Publication { number: self.next, news };
        self.next += 1;
        self.weight += publication.news.weight();
        self.ring.push_back(publication.clone());
        while self.weight > CHANGES_KEPT
            && let Some(oldest) = self.ring.pop_front()
        {
            self.weight -= oldest.news.weight();
        }
        // Fails if there is no watcher now.
        let _ = self.sender.send(publication);
    }

    /// What comes from now on, and where that is.
    pub(super) fn subscribe(&mut self) -> (broadcast::Receiver<Publication>, WatchToken) {
        self.is_on = true;
        let token = WatchToken { table: self.table, number: self.next, seen: 0 };
        (self.sender.subscribe(), token)
    }

    /// What was published from this place on; `None` if that is not known any more.
    pub(super) fn since(&self, token: WatchToken) -> Option<VecDeque<Publication>> {
        let first = self.next - self.ring.len() as u64;
        if token.table != self.table || !(first..=self.next).contains(&token.number) {
            return None;
        }
        // OK because the ring is not that long.
        let seen = usize::try_from(token.number - first).expect("within the ring");
        Some(self.ring.iter().skip(seen).cloned().collect())
    }
}
