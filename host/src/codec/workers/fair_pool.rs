//! The fair pool, for components and native codecs of users.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crate::codec::workers::purpose::Purpose;
use crate::codec::workers::slow_calls::run_with_purpose;
use crate::codec::{Codecs, HostFailure};
use crate::sync::{lock, wait, wait_timeout};
use crate::thread;

/// The maximum number of threads: enough that a well-behaved component still runs while dozens of others
/// loop.
const MAX_THREADS: usize = 64;

/// A job that runs for longer than this is slow.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// How long a thread waits for a job before it ends, if there are more threads than cores.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// The handle with which a table or a writer queues its jobs. Jobs queue by codec and purpose, and within
/// that by table or writer.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    /// `None` if all codecs are built in.
    guest: Option<LaneKey>,
    /// Identifies the table or the writer.
    owner: u64,
}

/// The name of a codec, and the purpose.
type LaneKey = (Arc<str>, Purpose);

impl Lane {
    /// Creates the lane of a table or a writer with these codecs.
    pub(crate) fn new(codecs: &Codecs, purpose: Purpose) -> Self {
        static NEXT_OWNER: AtomicU64 = AtomicU64::new(0);
        let guest = codecs.guest_name().map(|name| (Arc::from(name), purpose));
        Self { guest, owner: NEXT_OWNER.fetch_add(1, Ordering::Relaxed) }
    }

    /// Whether all codecs are built in.
    pub(crate) fn is_host(&self) -> bool {
        self.guest.is_none()
    }
}

/// The waiting jobs of one table or writer in one lane.
struct Queue {
    lane: LaneKey,
    owner: u64,
    jobs: VecDeque<Job>,
}

/// The state of a lane that has running jobs, or whose last job was slow while others wait.
#[derive(Debug, Default)]
struct LaneState {
    /// When each running job began.
    began: Vec<Instant>,
    /// Whether the last job was slow.
    is_slow: bool,
}

impl LaneState {
    /// Whether the lane may start another job.
    fn can_start_job(&self, now: Instant) -> bool {
        self.began.is_empty() || !self.is_slow && !self.began.iter().any(|&began| is_slow(began, now))
    }
}

fn is_slow(began: Instant, now: Instant) -> bool {
    now.saturating_duration_since(began) > TICK
}

/// The queues that have jobs, with the next one first, the lanes, and the number of threads.
#[derive(Default)]
struct State {
    queues: VecDeque<Queue>,
    lanes: HashMap<LaneKey, LaneState>,
    threads: usize,
    idle_threads: usize,
    /// Whether the supervisor looks at the jobs at each tick. Otherwise it sleeps until it is woken.
    is_supervised: bool,
}

impl State {
    /// Returns the number of running jobs that are not slow.
    fn quick_jobs(&self, now: Instant) -> usize {
        self.lanes.values().flat_map(|lane| &lane.began).filter(|&&began| !is_slow(began, now)).count()
    }

    /// Whether another job may start now.
    fn has_startable_job(&self, now: Instant, cores: usize) -> bool {
        self.quick_jobs(now) < cores && self.next_queue(now).is_some()
    }

    /// Whether the supervisor must look at the jobs before its next tick.
    fn needs_supervisor(&self, now: Instant, cores: usize) -> bool {
        !self.queues.is_empty() && (!self.is_supervised || self.has_startable_job(now, cores))
    }

    /// Returns the index of the first queue whose lane may start a job.
    fn next_queue(&self, now: Instant) -> Option<usize> {
        let can_start = |lane: &LaneKey| self.lanes.get(lane).is_none_or(|lane| lane.can_start_job(now));
        self.queues.iter().position(|queue| can_start(&queue.lane))
    }

    /// Takes the next job, if another job may run. Moves its queue to the end.
    fn take_job(&mut self, now: Instant, cores: usize) -> Option<(LaneKey, Job)> {
        if self.quick_jobs(now) >= cores {
            return None;
        }
        let mut queue = self.queues.remove(self.next_queue(now)?)?;
        let job = queue.jobs.pop_front()?;
        let lane = queue.lane.clone();
        if !queue.jobs.is_empty() {
            self.queues.push_back(queue);
        }
        self.lanes.entry(lane.clone()).or_default().began.push(now);
        Some((lane, job))
    }

    /// Records that a job of a lane, which began at this time, has ended.
    fn finish_job(&mut self, lane: &LaneKey, began: Instant, now: Instant) {
        let Some(state) = self.lanes.get_mut(lane) else { return };
        if let Some(index) = state.began.iter().position(|&other| other == began) {
            state.began.swap_remove(index);
        }
        state.is_slow = is_slow(began, now);
        let is_needed = state.is_slow && self.queues.iter().any(|queue| queue.lane == *lane);
        if state.began.is_empty() && !is_needed {
            self.lanes.remove(lane);
        }
    }
}

struct Pool {
    /// A std lock, because it is only held to add or take a job.
    state: Mutex<State>,
    /// Wakes an idle worker, because a job may be ready to run.
    job_ready: Condvar,
    /// Wakes the supervisor, because a job may need another thread.
    supervisor_wakeup: Condvar,
    cores: usize,
}

/// Queues a job of components or native codecs. The job of a lane whose codecs are all built in runs at once,
/// on the caller's thread; `workers::run` passes no such job.
pub(super) fn submit(lane: &Lane, job: Job) -> Result<(), HostFailure> {
    let pool = pool()?;
    let Some(key) = &lane.guest else {
        job();
        return Ok(());
    };
    let mut state = pool.lock();
    match state.queues.iter_mut().find(|queue| queue.owner == lane.owner && queue.lane == *key) {
        Some(queue) => queue.jobs.push_back(job),
        None => {
            let queue = Queue { lane: key.clone(), owner: lane.owner, jobs: VecDeque::from([job]) };
            state.queues.push_back(queue);
        }
    }
    // Waking the supervisor costs as much as waking a worker, so it is not done for each job.
    let has_idle_thread = state.idle_threads > 0;
    let needs_supervisor = !has_idle_thread && state.needs_supervisor(Instant::now(), pool.cores);
    drop(state);
    if has_idle_thread {
        pool.job_ready.notify_one();
    } else if needs_supervisor {
        pool.supervisor_wakeup.notify_one();
    }
    Ok(())
}

/// Returns the pool; the first call starts it.
fn pool() -> Result<&'static Pool, HostFailure> {
    static POOL: OnceLock<Result<Pool, HostFailure>> = OnceLock::new();
    let start = || {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (job_ready, supervisor_wakeup) = (Condvar::new(), Condvar::new());
        Ok(Pool { state: Mutex::default(), job_ready, supervisor_wakeup, cores })
    };
    let pool = POOL.get_or_init(start).as_ref().map_err(Clone::clone)?;
    static SUPERVISED: OnceLock<Result<(), HostFailure>> = OnceLock::new();
    let supervise = || {
        thread::spawn("ktables-codecs", move || pool.supervise())
            .map(drop)
            .map_err(|error| HostFailure::new(format!("cannot start codec worker threads: {error}")))
    };
    SUPERVISED.get_or_init(supervise).clone().map(|()| pool)
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Adds threads for jobs that may run, but find no idle thread because running jobs became slow.
    fn supervise(&'static self) {
        let mut state = self.lock();
        // Reported once, and not at each tick.
        let mut is_failure_reported = false;
        loop {
            let now = Instant::now();
            let can_run = state.has_startable_job(now, self.cores);
            if can_run && state.idle_threads > 0 {
                self.job_ready.notify_one();
            } else if can_run && state.threads < MAX_THREADS {
                state.threads += 1;
                match thread::spawn("ktables-codec", move || self.run_jobs()) {
                    Ok(_) => is_failure_reported = false,
                    Err(error) => {
                        state.threads -= 1;
                        if !std::mem::replace(&mut is_failure_reported, true) {
                            tracing::error!("cannot start a codec worker thread: {error}; trying again");
                        }
                    }
                }
            }
            state.is_supervised = !state.queues.is_empty();
            let wakeup = &self.supervisor_wakeup;
            state =
                if state.is_supervised { wait_timeout(wakeup, state, TICK).0 } else { wait(wakeup, state) };
        }
    }

    /// Runs jobs until the thread is no longer needed.
    fn run_jobs(&'static self) {
        let mut state = self.lock();
        loop {
            let began = Instant::now();
            let taken = state.take_job(began, self.cores);
            // Other jobs may need another thread, or can start only once a running job has become slow.
            if state.needs_supervisor(began, self.cores) {
                self.supervisor_wakeup.notify_one();
            }
            if let Some((lane, job)) = taken {
                drop(state);
                // OK to ignore: the panic was printed, and the caller notices that it receives no result.
                let _ = catch_unwind(AssertUnwindSafe(|| run_with_purpose(lane.1, job)));
                state = self.lock();
                state.finish_job(&lane, began, Instant::now());
                continue;
            }
            state.idle_threads += 1;
            let (guard, is_notified) = wait_timeout(&self.job_ready, state, IDLE_TIMEOUT);
            state = guard;
            state.idle_threads -= 1;
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

    fn key(name: &str) -> LaneKey {
        (Arc::from(name), Purpose::Read)
    }

    /// A state with queues, given as lane, owner and number of jobs.
    fn state(queues: &[(&str, u64, usize)]) -> State {
        let queue = |&(lane, owner, jobs): &(&str, u64, usize)| Queue {
            lane: key(lane),
            owner,
            jobs: (0..jobs).map(|_| Box::new(|| {}) as Job).collect(),
        };
        State { queues: queues.iter().map(queue).collect(), ..State::default() }
    }

    /// Runs all jobs, one after the other and all of them quick. Returns the names of their lanes.
    fn run_all(state: &mut State, now: Instant) -> String {
        let mut lanes = String::new();
        while let Some((lane, _)) = state.take_job(now, 1) {
            lanes.push_str(&lane.0);
            state.finish_job(&lane, now, now);
        }
        lanes
    }

    #[test]
    fn tables_and_lanes_take_turns() {
        let mut state = state(&[("a", 1, 3), ("a", 2, 1), ("b", 3, 2)]);
        assert_eq!(run_all(&mut state, Instant::now()), "aababa");
    }

    #[test]
    fn a_slow_job_delays_only_its_own_lane() {
        let start = Instant::now();
        let mut state = state(&[("slow", 1, 3), ("quick", 2, 2)]);
        assert_eq!(&*state.take_job(start, 2).unwrap().0.0, "slow");
        let later = start + 2 * TICK;
        assert_eq!(state.quick_jobs(later), 0);
        assert_eq!(&*state.take_job(later, 1).unwrap().0.0, "quick");
        // A quick job is already running, and the other lane waits for its slow job.
        assert!(state.take_job(later, 1).is_none());
        state.finish_job(&key("quick"), later, later);
        assert_eq!(&*state.take_job(later, 1).unwrap().0.0, "quick");
        state.finish_job(&key("quick"), later, later);
        assert!(state.take_job(later, 1).is_none());
        // After the slow job has ended, its lane runs one job at a time.
        state.finish_job(&key("slow"), start, later);
        assert_eq!(&*state.take_job(later, 2).unwrap().0.0, "slow");
        assert!(state.take_job(later, 2).is_none());
        // After a quick job, the lane may run several jobs at once again.
        state.finish_job(&key("slow"), later, later);
        assert!(state.take_job(later, 2).is_some());
    }

    #[test]
    fn the_supervisor_is_woken_only_for_jobs_that_can_start_or_that_it_does_not_watch() {
        let now = Instant::now();
        let mut state = state(&[("a", 1, 2), ("b", 2, 1)]);
        assert!(state.needs_supervisor(now, 2), "nobody looks at the jobs");
        state.is_supervised = true;
        assert!(state.take_job(now, 2).is_some());
        assert!(state.needs_supervisor(now, 2), "another job can start");
        assert!(state.take_job(now, 2).is_some());
        assert!(!state.needs_supervisor(now, 2), "all cores are busy");
        state.finish_job(&key("a"), now, now);
        assert!(state.take_job(now, 2).is_some() && !state.needs_supervisor(now, 2), "no job waits");
    }

    #[test]
    fn a_lane_without_jobs_is_removed() {
        let now = Instant::now();
        let mut state = state(&[("a", 1, 1)]);
        assert!(state.take_job(now, 1).is_some());
        state.finish_job(&key("a"), now, now + 5 * TICK);
        assert!(state.lanes.is_empty() && state.queues.is_empty());
    }
}
