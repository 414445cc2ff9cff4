//! Follows loaded topics: one client for all tables of a cluster, with as little traffic as possible. A
//! second client is needed only for a topic that is read twice at the same time, or that was re-created: a
//! client cannot read a partition twice, and may stick to the leader epoch of a topic that is gone.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::log::kafka::config::{Configs, Purpose};
use crate::log::kafka::ffi::client::{Client, partition_list};
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::kafka::read::feed::{Feed, Reading};
use crate::log::kafka::read::reader::{Reader, WhenFull, positions};
use crate::log::{LogError, Offset, Partition};
use crate::sync::lock;
use crate::thread::run_in_background;

/// How long to wait for events while nobody waits for a position. Commands and records end the wait.
const IDLE_POLL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait for events while somebody waits for a position, or a stream is full.
const BUSY_POLL_TIMEOUT: Duration = Duration::from_millis(2);

/// How long positions are requested from the client. By then, the event for the end of the partition has
/// arrived.
const POSITION_REQUEST_LIFETIME: Duration = Duration::from_secs(2);

/// How many events are handled before the collected records are sent.
const MAX_EVENTS: usize = 1000;

/// How long a request for the leaders of the partitions may take.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the client must request the leaders of the partitions again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log::kafka) enum Refresh {
    Yes,
    No,
}

/// The tail clients of a cluster: one, as a rule.
#[derive(Debug)]
pub(in crate::log::kafka) struct TailClients {
    configs: Arc<Configs>,
    log: Arc<str>,
    health: Arc<ClusterHealth>,
    /// A std lock, held only to find a tail client, or to start one.
    tails: Mutex<Vec<TailClient>>,
}

impl TailClients {
    pub(in crate::log::kafka) fn new(
        configs: Arc<Configs>,
        log: Arc<str>,
        health: Arc<ClusterHealth>,
    ) -> Self {
        Self { configs, log, health, tails: Mutex::default() }
    }

    /// Follows the partitions of these feeds, which belong to one reading, from their positions.
    pub(in crate::log::kafka) fn adopt(&self, mut feeds: Vec<Feed>, refresh: Refresh) {
        let Some(reading) = feeds.first().map(|feed| feed.reading.clone()) else { return };
        let mut tails = lock(&self.tails);
        let idle = |tail: &mut TailClient| !tail.is_in_use() && !tail.accepts(&reading);
        let idle: Vec<TailClient> = tails.extract_if(.., idle).collect();
        let tail = match tails.iter().position(|tail| tail.accepts(&reading)) {
            Some(index) => Ok(&mut tails[index]),
            None => self.start().map(|tail| {
                tails.push(tail);
                // OK because it was just pushed.
                tails.last_mut().expect("not empty")
            }),
        };
        match tail {
            Ok(tail) => tail.adopt(&reading, feeds, refresh),
            Err(error) => feeds.iter_mut().for_each(|feed| feed.fail(error.clone())),
        }
        // Idle clients are dropped after the lock is released.
        drop(tails);
        drop(idle);
    }

    /// Requests positions from the client until they reach these targets, because somebody waits for them.
    pub(in crate::log::kafka) fn request_positions(&self, topic: &str, targets: &[(Partition, Offset)]) {
        for tail in lock(&self.tails).iter() {
            if tail.topics.contains_key(topic) {
                tail.send(Command::RequestPositions(topic.into(), targets.to_vec()));
            }
        }
    }

    /// Makes the clients of a topic request the leaders of its partitions again.
    pub(in crate::log::kafka) fn refresh(&self, topic: &str) {
        for tail in lock(&self.tails).iter() {
            if tail.topics.contains_key(topic) {
                tail.send(Command::Refresh);
            }
        }
    }

    /// Replaces the client that follows a reading.
    pub(in crate::log::kafka) fn replace(&self, reading: &Arc<Reading>) {
        let topic = &*reading.topic;
        tracing::info!(
            log = %self.log, topic,
            "no data arrives although the topic has more records: another client reads it from now on"
        );
        for tail in lock(&self.tails).iter() {
            let current = tail.topics.get(&reading.topic).map(|(_, current)| current.as_ptr());
            if current.is_some_and(|current| std::ptr::eq(current, Arc::as_ptr(reading))) {
                tail.send(Command::Replace);
            }
        }
    }

    fn start(&self) -> Result<TailClient, LogError> {
        let client = Arc::new(self.configs.start(Purpose::Tail)?);
        let shared = Arc::new(Mutex::new(client.clone()));
        let (commands, received) = channel();
        let reader = Reader::new(client, WhenFull::Buffer, self.log.clone(), self.health.clone());
        let tail_thread = TailThread {
            reader,
            commands: received,
            client: shared.clone(),
            requested: HashMap::new(),
            known_topics: HashSet::new(),
            needs_refresh: false,
            refresh_thread: None,
            configs: self.configs.clone(),
            log: self.log.clone(),
        };
        let thread = crate::thread::spawn("ktables-tail", move || tail_thread.run()).map_err(|error| {
            LogError::Client { log: self.log.to_string(), reason: format!("cannot start a thread: {error}") }
        })?;
        Ok(TailClient { commands, client: shared, topics: HashMap::new(), thread: Some(thread) })
    }
}

/// The handle of a tail client's thread.
#[derive(Debug)]
struct TailClient {
    commands: Sender<Command>,
    /// The thread's client, to wake it. A std lock, held only to wake or to replace the client.
    client: Arc<Mutex<Arc<Client>>>,
    /// The identity of each topic when it was adopted, and its reading, which may have ended.
    topics: HashMap<Arc<str>, (String, Weak<Reading>)>,
    thread: Option<JoinHandle<()>>,
}

/// A command to the thread of a tail client.
#[derive(Debug)]
enum Command {
    Adopt(Vec<Feed>, Refresh),
    RequestPositions(Arc<str>, Vec<(Partition, Offset)>),
    Refresh,
    Replace,
    Stop,
}

impl TailClient {
    /// Whether the client can follow a reading: it knows no other topic of this name, and nobody else reads
    /// the topic.
    fn accepts(&self, reading: &Arc<Reading>) -> bool {
        self.topics.get(&reading.topic).is_none_or(|(id, current)| {
            let is_same = std::ptr::eq(current.as_ptr(), Arc::as_ptr(reading));
            *id == reading.id && (is_same || current.strong_count() == 0)
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
        // OK to ignore: the thread ends only after `Command::Stop`.
        let _ = self.commands.send(command);
        lock(&self.client).wake();
    }
}

impl Drop for TailClient {
    fn drop(&mut self) {
        self.send(Command::Stop);
        let thread = self.thread.take();
        // OK to ignore the result: the panic hook has reported a panic.
        run_in_background(move || drop(thread.map(JoinHandle::join)));
    }
}

/// The work of a tail client's thread.
struct TailThread {
    reader: Reader,
    commands: Receiver<Command>,
    client: Arc<Mutex<Arc<Client>>>,
    /// The partitions whose positions are requested: up to which offset, and until when.
    requested: HashMap<(Arc<str>, Partition), (Offset, Instant)>,
    /// The topics whose leaders the client was made to request at least once.
    known_topics: HashSet<Arc<str>>,
    /// Whether the client must request the leaders of its partitions.
    needs_refresh: bool,
    /// The thread of the last such request.
    refresh_thread: Option<JoinHandle<()>>,
    configs: Arc<Configs>,
    log: Arc<str>,
}

impl TailThread {
    fn run(mut self) {
        let mut is_any_full = false;
        loop {
            let is_busy = is_any_full || !self.requested.is_empty();
            let timeout = if is_busy { BUSY_POLL_TIMEOUT } else { IDLE_POLL_TIMEOUT };
            if self.reader.poll(timeout, MAX_EVENTS).is_err()
                && let Err(error) = self.replace_client()
            {
                // The client is dead, and no other can be started.
                self.reader.feeds.iter_mut().for_each(|feed| feed.fail(error.clone()));
            }
            if self.run_commands() {
                return;
            }
            self.start_refresh();
            self.update_requested_positions();
            is_any_full = self.flush_feeds();
            self.reader.drop_closed();
        }
    }

    /// Runs the commands that have arrived. Returns whether to stop.
    fn run_commands(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Adopt(feeds, refresh)) => self.adopt(feeds, refresh),
                Ok(Command::Refresh) => self.needs_refresh = true,
                Ok(Command::Replace) => {
                    if let Err(error) = self.replace_client() {
                        tracing::warn!(
                            log = %self.log,
                            "cannot replace a client that receives no data, it stays in use: {error}"
                        );
                    }
                }
                Ok(Command::RequestPositions(topic, targets)) => {
                    let until = Instant::now() + POSITION_REQUEST_LIFETIME;
                    for (partition, offset) in targets {
                        self.requested.insert((topic.clone(), partition), (offset, until));
                    }
                }
                Err(TryRecvError::Empty) => return false,
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn adopt(&mut self, feeds: Vec<Feed>, refresh: Refresh) {
        // A closed reading of the same topic must be unassigned first.
        self.reader.drop_closed();
        if let Some(feed) = feeds.first() {
            let is_new = self.known_topics.insert(feed.reading.topic.clone());
            self.needs_refresh |= is_new || refresh == Refresh::Yes;
        }
        self.reader.assign(feeds);
    }

    /// Starts a request for the leaders of the partitions, if one is needed: a client that does not know a
    /// leader requests it only after half a second. One request serves all topics. It may take as long as a
    /// broker waits for records, so it runs on another thread, and a second one starts only after it has
    /// ended.
    fn start_refresh(&mut self) {
        let is_running = |thread: &JoinHandle<()>| !thread.is_finished();
        if !self.needs_refresh || self.refresh_thread.as_ref().is_some_and(is_running) {
            return;
        }
        self.needs_refresh = false;
        let (client, log) = (self.reader.client.clone(), self.log.clone());
        let thread = crate::thread::spawn("ktables-refresh", move || {
            if let Err(error) = client.probe(REFRESH_TIMEOUT) {
                tracing::debug!(%log, "cannot request the leaders of partitions: {error}");
            }
        });
        match thread {
            Ok(thread) => self.refresh_thread = Some(thread),
            Err(error) => {
                tracing::debug!(log = %self.log, "cannot start a thread to request leaders: {error}");
            }
        }
    }

    /// Advances the feeds whose positions are requested, and drops requests that are fulfilled or too old.
    fn update_requested_positions(&mut self) {
        let now = Instant::now();
        let feeds = &mut self.reader.feeds;
        self.requested.retain(|(topic, partition), (target, until)| {
            feeds.get_mut(topic, *partition).is_some_and(|feed| feed.position() < *target) && *until > now
        });
        if !self.requested.is_empty() {
            let list =
                partition_list(self.requested.keys().map(|(topic, partition)| (&**topic, *partition, 0)));
            self.reader.update_positions(&list);
        }
    }

    /// Sends the collected records. Pauses partitions whose streams are full, and resumes those that have
    /// room again. Returns whether any stream is full.
    fn flush_feeds(&mut self) -> bool {
        let (mut pause, mut resume, mut is_any_full) = (Vec::new(), Vec::new(), false);
        for feed in self.reader.feeds.iter_mut() {
            feed.flush();
            let has_room = feed.send_pending();
            is_any_full |= !has_room;
            if has_room == feed.is_paused {
                feed.is_paused = !has_room;
                if has_room { &mut resume } else { &mut pause }.push(&*feed);
            }
        }
        if !pause.is_empty() {
            self.reader.client.pause(&positions(pause));
        }
        if !resume.is_empty() {
            self.reader.client.resume(&positions(resume));
        }
        is_any_full
    }

    /// Replaces the client. The new one continues at the positions of the feeds.
    fn replace_client(&mut self) -> Result<(), LogError> {
        let client = Arc::new(self.configs.start(Purpose::Tail)?);
        let old = std::mem::replace(&mut *lock(&self.client), client.clone());
        self.known_topics.clear();
        self.needs_refresh = true;
        self.reader.replace(client);
        // Dropping a stuck client may block for long.
        if let Err(error) = crate::thread::spawn("ktables-retire", move || drop(old)) {
            tracing::debug!(log = %self.log, "cannot start a thread to drop a client: {error}");
        }
        Ok(())
    }
}
