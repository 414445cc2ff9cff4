//! Following topics that are loaded: one client for all of a cluster's tables, as
//! quiet as can be. Only a topic that is read twice at once, or that was made anew
//! under its name, needs another: a client reads a partition once, and may stick to
//! what it knew of a topic that is gone.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::log::kafka::config::{Configs, Purpose};
use crate::log::kafka::ffi::client::{Client, places};
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::kafka::read::feed::{Feed, Reading};
use crate::log::kafka::read::reader::{Reader, WhenFull, at};
use crate::log::{LogError, Offset, Partition};
use crate::sync::lock;
use crate::thread::run_aside;

/// How long to wait for events when nobody is in a hurry. Commands and records end
/// the wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait for events while somebody waits for a position, or a stream has
/// no room.
const SLICE: Duration = Duration::from_millis(2);

/// For how long positions are asked for: by then the news of the partition's end
/// have come.
const HURRY: Duration = Duration::from_secs(2);

/// How many events are taken before what was gathered is handed on.
const BURST: usize = 1000;

/// How long to wait for the answer to who leads partitions.
const REFRESH: Duration = Duration::from_secs(2);

/// Whether the client must learn anew who leads the partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::kafka) enum Refresh {
    Yes,
    No,
}

/// The tails of a cluster: one, as a rule.
#[derive(Debug)]
pub(in crate::log::kafka) struct Tails {
    configs: Arc<Configs>,
    log: Arc<str>,
    health: Arc<ClusterHealth>,
    /// A std lock: held to find a tail, or to start one.
    tails: Mutex<Vec<Tail>>,
}

impl Tails {
    pub(in crate::log::kafka) fn new(
        configs: Arc<Configs>,
        log: Arc<str>,
        health: Arc<ClusterHealth>,
    ) -> Self {
        Self { configs, log, health, tails: Mutex::default() }
    }

    /// Follows partitions of one reading from where their feeds are.
    pub(in crate::log::kafka) fn adopt(&self, mut feeds: Vec<Feed>, refresh: Refresh) {
        let Some(reading) = feeds.first().map(|feed| feed.reading.clone()) else { return };
        let mut tails = lock(&self.tails);
        let idle = |tail: &mut Tail| !tail.is_in_use() && !tail.accepts(&reading);
        let idle: Vec<Tail> = tails.extract_if(.., idle).collect();
        let tail = match tails.iter().position(|tail| tail.accepts(&reading)) {
            Some(index) => Ok(&mut tails[index]),
            None => self.start().map(|tail| {
                tails.push(tail);
                // OK because it was just put there.
                tails.last_mut().expect("there is one")
            }),
        };
        match tail {
            Ok(tail) => tail.adopt(&reading, feeds, refresh),
            Err(error) => feeds.iter_mut().for_each(|feed| feed.fail(error.clone())),
        }
        // They end when nobody waits for the lock any more.
        drop(tails);
        drop(idle);
    }

    /// Somebody waits until these positions are told.
    pub(in crate::log::kafka) fn hurry(&self, topic: &str, targets: &[(Partition, Offset)]) {
        // OK as above.
        for tail in lock(&self.tails).iter() {
            if tail.topics.contains_key(topic) {
                tail.send(Command::Hurry(topic.into(), targets.to_vec()));
            }
        }
    }

    /// Makes whoever reads a topic learn anew who leads its partitions.
    pub(in crate::log::kafka) fn refresh(&self, topic: &str) {
        // OK as above.
        for tail in lock(&self.tails).iter() {
            if tail.topics.contains_key(topic) {
                tail.send(Command::Refresh);
            }
        }
    }

    /// Makes whoever follows for a reading go on with another client.
    pub(in crate::log::kafka) fn replace(&self, reading: &Arc<Reading>) {
        let topic = &*reading.topic;
        tracing::info!(log = %self.log, topic, "nothing comes of a topic that has more: another client reads it");
        // OK as above.
        for tail in lock(&self.tails).iter() {
            let current = tail.topics.get(&reading.topic).map(|(_, current)| current.as_ptr());
            if current.is_some_and(|current| std::ptr::eq(current, Arc::as_ptr(reading))) {
                tail.send(Command::Replace);
            }
        }
    }

    fn start(&self) -> Result<Tail, LogError> {
        let client = Arc::new(self.configs.start(Purpose::Tail)?);
        let shared = Arc::new(Mutex::new(client.clone()));
        let (commands, received) = channel();
        let reader = Reader::new(client, WhenFull::GoOn, self.log.clone(), self.health.clone());
        let following = Following {
            reader,
            commands: received,
            client: shared.clone(),
            hurry: HashMap::new(),
            known: HashSet::new(),
            must_learn: false,
            learning: None,
            configs: self.configs.clone(),
            log: self.log.clone(),
        };
        let thread = crate::thread::spawn("ktables-tail", move || following.run()).map_err(|error| {
            LogError::Client { log: self.log.to_string(), reason: format!("no thread: {error}") }
        })?;
        Ok(Tail { commands, client: shared, topics: HashMap::new(), thread: Some(thread) })
    }
}

/// One tail, seen from outside its thread.
#[derive(Debug)]
struct Tail {
    commands: Sender<Command>,
    /// A std lock: held to look or to replace. The thread's client, to wake it.
    client: Arc<Mutex<Arc<Client>>>,
    /// Of each topic the identity it had, and the reading that there may still be.
    topics: HashMap<Arc<str>, (String, Weak<Reading>)>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Command {
    Adopt(Vec<Feed>, Refresh),
    Hurry(Arc<str>, Vec<(Partition, Offset)>),
    Refresh,
    Replace,
    Stop,
}

impl Tail {
    fn accepts(&self, reading: &Arc<Reading>) -> bool {
        self.topics.get(&reading.topic).is_none_or(|(id, current)| {
            let same = std::ptr::eq(current.as_ptr(), Arc::as_ptr(reading));
            *id == reading.id && (same || current.strong_count() == 0)
        })
    }

    fn is_in_use(&self) -> bool {
        self.topics.values().any(|(_, reading)| reading.strong_count() > 0)
    }

    fn adopt(&mut self, reading: &Arc<Reading>, feeds: Vec<Feed>, refresh: Refresh) {
        self.topics.insert(reading.topic.clone(), (reading.id.clone(), Arc::downgrade(reading)));
        self.send(Command::Adopt(feeds, refresh));
    }

    fn send(&self, command: Command) {
        // The thread ends only when it is told to.
        let _ = self.commands.send(command);
        lock(&self.client).wake();
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.send(Command::Stop);
        let thread = self.thread.take();
        // That it panicked it has said.
        run_aside(move || drop(thread.map(JoinHandle::join)));
    }
}

/// What a tail's thread has.
struct Following {
    reader: Reader,
    commands: Receiver<Command>,
    client: Arc<Mutex<Arc<Client>>>,
    /// Until when to ask for which position, up to which offset.
    hurry: HashMap<(Arc<str>, Partition), (Offset, Instant)>,
    /// The topics whose partitions the client has been told to learn of.
    known: HashSet<Arc<str>>,
    /// It is to learn who leads what it reads.
    must_learn: bool,
    /// The question under way, or the last one.
    learning: Option<JoinHandle<()>>,
    configs: Arc<Configs>,
    log: Arc<str>,
}

impl Following {
    fn run(mut self) {
        let mut full = false;
        loop {
            let patience = if full || !self.hurry.is_empty() { SLICE } else { PATIENCE };
            if self.reader.poll(patience, BURST).is_err()
                && let Err(error) = self.replace_client()
            {
                // The client is dead, and there is no other.
                self.reader.feeds.iter_mut().for_each(|feed| feed.fail(error.clone()));
            }
            if self.obey() {
                return;
            }
            self.learn();
            self.ask_positions();
            full = self.hand_on();
            self.reader.drop_closed();
        }
    }

    /// Does what it was told; true if it is to stop.
    fn obey(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Adopt(feeds, refresh)) => self.adopt(feeds, refresh),
                Ok(Command::Refresh) => self.must_learn = true,
                Ok(Command::Replace) => {
                    if let Err(error) = self.replace_client() {
                        tracing::warn!(log = %self.log, "the client that gets nothing stays: {error}");
                    }
                }
                Ok(Command::Hurry(topic, targets)) => {
                    let until = Instant::now() + HURRY;
                    for (partition, offset) in targets {
                        self.hurry.insert((topic.clone(), partition), (offset, until));
                    }
                }
                Err(TryRecvError::Empty) => return false,
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn adopt(&mut self, feeds: Vec<Feed>, refresh: Refresh) {
        // What was read of the topic before must be given up first.
        self.reader.drop_closed();
        if let Some(feed) = feeds.first() {
            feed.reading.is_followed.store(true, Ordering::Relaxed);
            let is_new = self.known.insert(feed.reading.topic.clone());
            self.must_learn |= is_new || refresh == Refresh::Yes;
        }
        self.reader.assign(feeds);
    }

    /// A client that does not know who leads a partition looks again after half a second.
    /// One question for all topics: it may take as long as a broker waits for records, so it is
    /// asked beside, and not again before it was answered.
    fn learn(&mut self) {
        if !self.must_learn || self.learning.as_ref().is_some_and(|learning| !learning.is_finished()) {
            return;
        }
        self.must_learn = false;
        let (client, log) = (self.reader.client.clone(), self.log.clone());
        let learning = crate::thread::spawn("ktables-learn", move || {
            if let Err(error) = client.probe(REFRESH) {
                tracing::debug!(%log, "cannot ask who leads partitions: {error}");
            }
        });
        match learning {
            Ok(learning) => self.learning = Some(learning),
            Err(error) => tracing::debug!(log = %self.log, "no thread: {error}"),
        }
    }

    fn ask_positions(&mut self) {
        let now = Instant::now();
        let feeds = &mut self.reader.feeds;
        self.hurry.retain(|(topic, partition), (target, until)| {
            feeds.at(topic, *partition).is_some_and(|feed| feed.position() < *target) && *until > now
        });
        if !self.hurry.is_empty() {
            let list = places(self.hurry.keys().map(|(topic, partition)| (&**topic, *partition, 0)));
            self.reader.sample(&list);
        }
    }

    /// Hands on what was gathered. Partitions whose stream has no room rest until
    /// it has; true if there are any.
    fn hand_on(&mut self) -> bool {
        let (mut pause, mut resume, mut full) = (Vec::new(), Vec::new(), false);
        for feed in self.reader.feeds.iter_mut() {
            feed.flush();
            let room = feed.settle();
            full |= !room;
            if room == feed.paused {
                feed.paused = !room;
                if room { &mut resume } else { &mut pause }.push(&*feed);
            }
        }
        if !pause.is_empty() {
            self.reader.client.pause(&at(pause));
        }
        if !resume.is_empty() {
            self.reader.client.resume(&at(resume));
        }
        full
    }

    /// Goes on with a new client.
    fn replace_client(&mut self) -> Result<(), LogError> {
        let client = Arc::new(self.configs.start(Purpose::Tail)?);
        let old = std::mem::replace(&mut *lock(&self.client), client.clone());
        self.known.clear();
        self.must_learn = true;
        self.reader.replace(client);
        // A client that is stuck may take its time to end.
        if let Err(error) = crate::thread::spawn("ktables-retire", move || drop(old)) {
            tracing::debug!(log = %self.log, "no thread: {error}");
        }
        Ok(())
    }
}
