//! The fair pool, for components and native codecs of users.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crate::codec::workers::purpose::Purpose;
use crate::codec::workers::slow_calls::with_purpose;
use crate::codec::{Codecs, HostFailure};
use crate::sync::{lock, wait, wait_timeout};
use crate::thread;

/// The most threads: enough that dozens of components may loop at once beside one that does not.
const MAX_THREADS: usize = 64;

/// A job that runs for longer is slow.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// How long an idle thread waits for work before it ends.
const LINGER: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// Where jobs queue: by codec and purpose, and within that by table or writer.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    /// `None` if all codecs are built in.
    guest: Option<Key>,
    /// Identifies the table or the writer.
    turn: u64,
}

/// The name of a codec, and the purpose.
type Key = (Arc<str>, Purpose);

impl Lane {
    /// Creates the lane of a table or a writer with these codecs.
    pub(crate) fn new(codecs: &Codecs, purpose: Purpose) -> Self {
        static TURNS: AtomicU64 = AtomicU64::new(0);
        let guest = codecs.guest().map(|name| (Arc::from(name), purpose));
        Self { guest, turn: TURNS.fetch_add(1, Ordering::Relaxed) }
    }

    /// Whether all codecs are built in.
    pub(crate) fn is_host(&self) -> bool {
        self.guest.is_none()
    }
}

/// The jobs of one table in one lane.
struct Queue {
    lane: Key,
    turn: u64,
    jobs: VecDeque<Job>,
}

/// The state of a lane whose jobs are running, or whose last job was slow.
#[derive(Debug, Default)]
struct Activity {
    /// When each running job began.
    began: Vec<Instant>,
    /// Whether the last job was slow.
    is_slow: bool,
}

impl Activity {
    /// Whether another job of the lane may begin.
    fn admits(&self, now: Instant) -> bool {
        self.began.is_empty() || !self.is_slow && !self.began.iter().any(|&began| is_slow(began, now))
    }
}

fn is_slow(began: Instant, now: Instant) -> bool {
    now.saturating_duration_since(began) > TICK
}

/// The queues, in the order of their turns, and the threads.
#[derive(Default)]
struct State {
    queues: VecDeque<Queue>,
    lanes: HashMap<Key, Activity>,
    threads: usize,
    idle: usize,
}

impl State {
    /// The number of running jobs that are not slow.
    fn quick(&self, now: Instant) -> usize {
        self.lanes.values().flat_map(|lane| &lane.began).filter(|&&began| !is_slow(began, now)).count()
    }

    /// The index of the queue whose turn it is.
    fn next(&self, now: Instant) -> Option<usize> {
        self.queues.iter().position(|queue| self.lanes.get(&queue.lane).is_none_or(|lane| lane.admits(now)))
    }

    /// Takes the job whose turn it is, if another job may run.
    fn take(&mut self, now: Instant, cores: usize) -> Option<(Key, Job)> {
        if self.quick(now) >= cores {
            return None;
        }
        let mut queue = self.queues.remove(self.next(now)?)?;
        let job = queue.jobs.pop_front()?;
        let lane = queue.lane.clone();
        if !queue.jobs.is_empty() {
            self.queues.push_back(queue);
        }
        self.lanes.entry(lane.clone()).or_default().began.push(now);
        Some((lane, job))
    }

    /// Records that a job of a lane, which began at this time, has ended.
    fn end(&mut self, lane: &Key, began: Instant, now: Instant) {
        let Some(activity) = self.lanes.get_mut(lane) else { return };
        if let Some(index) = activity.began.iter().position(|&other| other == began) {
            activity.began.swap_remove(index);
        }
        activity.is_slow = is_slow(began, now);
        let is_used = activity.is_slow && self.queues.iter().any(|queue| queue.lane == *lane);
        if activity.began.is_empty() && !is_used {
            self.lanes.remove(lane);
        }
    }
}

struct Pool {
    /// A std lock: held to add or take a job.
    state: Mutex<State>,
    /// Notified when there may be a job for a worker.
    work: Condvar,
    /// Notified when the supervisor may have to act.
    check: Condvar,
    cores: usize,
}

/// Queues a job.
pub(super) fn submit(lane: &Lane, job: Job) -> Result<(), HostFailure> {
    let pool = pool()?;
    let Some(key) = &lane.guest else {
        job();
        return Ok(());
    };
    let mut state = pool.lock();
    match state.queues.iter_mut().find(|queue| queue.turn == lane.turn && queue.lane == *key) {
        Some(queue) => queue.jobs.push_back(job),
        None => {
            let queue = Queue { lane: key.clone(), turn: lane.turn, jobs: VecDeque::from([job]) };
            state.queues.push_back(queue);
        }
    }
    let is_idle = state.idle > 0;
    drop(state);
    if is_idle {
        pool.work.notify_one();
    }
    // The idle thread may not be allowed to take the job.
    pool.check.notify_one();
    Ok(())
}

/// Returns the pool; the first call starts it.
fn pool() -> Result<&'static Pool, HostFailure> {
    static POOL: OnceLock<Result<Pool, HostFailure>> = OnceLock::new();
    let start = || {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Pool { state: Mutex::default(), work: Condvar::new(), check: Condvar::new(), cores })
    };
    let pool = POOL.get_or_init(start).as_ref().map_err(Clone::clone)?;
    static SUPERVISED: OnceLock<Result<(), HostFailure>> = OnceLock::new();
    let supervise = || {
        thread::spawn("ktables-codecs", move || pool.supervise())
            .map(drop)
            .map_err(|error| HostFailure { reason: format!("cannot start worker threads: {error}") })
    };
    SUPERVISED.get_or_init(supervise).clone().map(|()| pool)
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Adds threads while jobs wait that no thread can take, because running jobs turned slow.
    fn supervise(&'static self) {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let waits = !state.queues.is_empty();
            let can_run = waits && state.quick(now) < self.cores && state.next(now).is_some();
            if can_run && state.idle > 0 {
                self.work.notify_one();
            } else if can_run && state.threads < MAX_THREADS {
                state.threads += 1;
                if let Err(error) = thread::spawn("ktables-codec", move || self.work()) {
                    state.threads -= 1;
                    tracing::error!("cannot start a thread for codecs: {error}");
                }
            }
            state = if waits { wait_timeout(&self.check, state, TICK).0 } else { wait(&self.check, state) };
        }
    }

    /// Runs jobs until the thread is not needed any more.
    fn work(&'static self) {
        let mut state = self.lock();
        loop {
            let began = Instant::now();
            if let Some((lane, job)) = state.take(began, self.cores) {
                if !state.queues.is_empty() {
                    self.check.notify_one();
                }
                drop(state);
                // The panic was printed, and the caller notices that there is no answer.
                let _ = catch_unwind(AssertUnwindSafe(|| with_purpose(lane.1, job)));
                state = self.lock();
                state.end(&lane, began, Instant::now());
                continue;
            }
            state.idle += 1;
            let (guard, is_notified) = wait_timeout(&self.work, state, LINGER);
            state = guard;
            state.idle -= 1;
            if !is_notified && state.threads > self.cores && state.queues.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        (Arc::from(name), Purpose::Read)
    }

    fn state(queues: &[(&str, u64, usize)]) -> State {
        let queue = |&(lane, turn, jobs): &(&str, u64, usize)| Queue {
            lane: key(lane),
            turn,
            jobs: (0..jobs).map(|_| Box::new(|| {}) as Job).collect(),
        };
        State { queues: queues.iter().map(queue).collect(), ..State::default() }
    }

    /// The lanes whose jobs are taken one after the other, all of them quick.
    fn order(state: &mut State, now: Instant) -> String {
        let mut order = String::new();
        while let Some((lane, _)) = state.take(now, 1) {
            order.push_str(&lane.0);
            state.end(&lane, now, now);
        }
        order
    }

    #[test]
    fn tables_and_lanes_take_turns() {
        let mut state = state(&[("a", 1, 3), ("a", 2, 1), ("b", 3, 2)]);
        assert_eq!(order(&mut state, Instant::now()), "aababa");
    }

    #[test]
    fn a_slow_job_holds_up_its_own_lane_only() {
        let start = Instant::now();
        let mut state = state(&[("slow", 1, 3), ("quick", 2, 2)]);
        assert_eq!(&*state.take(start, 2).unwrap().0.0, "slow");
        let later = start + 2 * TICK;
        assert_eq!(state.quick(later), 0);
        assert_eq!(&*state.take(later, 1).unwrap().0.0, "quick");
        // One quick job runs already, and the lane of the slow one is held up.
        assert!(state.take(later, 1).is_none());
        state.end(&key("quick"), later, later);
        assert_eq!(&*state.take(later, 1).unwrap().0.0, "quick");
        state.end(&key("quick"), later, later);
        assert!(state.take(later, 1).is_none());
        // When it has ended, the lane goes on with one job at a time.
        state.end(&key("slow"), start, later);
        assert_eq!(&*state.take(later, 2).unwrap().0.0, "slow");
        assert!(state.take(later, 2).is_none());
        // One that is quick again shows that more may run at once.
        state.end(&key("slow"), later, later);
        assert!(state.take(later, 2).is_some());
    }

    #[test]
    fn a_lane_without_jobs_uses_no_memory() {
        let now = Instant::now();
        let mut state = state(&[("a", 1, 1)]);
        assert!(state.take(now, 1).is_some());
        state.end(&key("a"), now, now + 5 * TICK);
        assert!(state.lanes.is_empty() && state.queues.is_empty());
    }
}
