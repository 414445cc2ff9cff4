//! The quarantine of codecs that keep faulting: they decode one record at a time, with pauses, so that they neither use up
//! the workers nor reject a topic in silence. Each of these records is decoded or rejected, so the table moves on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedMutexGuard};

use crate::codec::{HostFailure, RejectReason};
use crate::sync::lock;
use crate::table::settings::{OnQuarantine, QuarantineSettings, RETRY_AFTER};

/// How many of the newest records are judged by their number of faults.
const RECORDS: u64 = 1_000;

/// For how long calls are judged by the time that faults take. Faults may take half of it.
const WINDOW: Duration = Duration::from_secs(10);

/// The parts of [`WINDOW`] whose times are added up.
const PARTS: u32 = 10;

/// How many calls must have faulted within [`WINDOW`] before their time counts.
const MIN_FAULTING_CALLS: u32 = 8;

/// The first and the longest time between two records in quarantine. A fault doubles it.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// How many records in a row must pass before the quarantine ends.
const CLEAN_RECORDS: u32 = 20;

/// After this many failed starts in a row, a codec that has worked before is quarantined.
const MAX_FAILED_STARTS: u32 = 3;

/// When a codec may decode its next record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    At(Instant),
    /// When it is swapped for another one.
    Never,
}

/// What some calls of a codec did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CallStats<'a> {
    /// How many records were decoded or rejected.
    pub(super) records: u64,
    /// How many of them made the codec fault.
    pub(super) faults: u64,
    pub(super) last_fault: Option<&'a RejectReason>,
    /// The time of all calls.
    pub(super) took: Duration,
    /// The calls that faulted, over one record or several, and their time.
    pub(super) faulting_calls: u32,
    pub(super) fault_time: Duration,
}

/// What begins or ends with some calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// The quarantine, for this reason.
    Began(Arc<str>),
    Ended,
}

/// The permit to decode a record with codecs in quarantine. There is one at a time.
#[derive(Debug)]
pub(super) struct Permit(#[allow(dead_code, reason = "held until it is dropped")] OwnedMutexGuard<()>);

/// Decides when the codecs of a generation are quarantined, and lets them decode one record at a time then.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    /// A std lock: held to note calls, also while a change is published.
    judge: Mutex<Judge>,
    permits: Arc<tokio::sync::Mutex<()>>,
    /// Notified when the quarantine ends.
    ended: Notify,
}

impl Quarantine {
    /// Whether the codecs are in quarantine.
    pub(super) fn is_active(&self) -> bool {
        lock(&self.judge).active.is_some()
    }

    /// Waits until a record may be decoded. Returns a permit for a single record if the codecs are in quarantine.
    pub(super) async fn permit(&self, settings: QuarantineSettings) -> Option<Permit> {
        loop {
            // Begun before the look at the state, so that no end is missed.
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            let wait = async {
                self.due(settings)?;
                let permit = Permit(self.permits.clone().lock_owned().await);
                // Others have had their turns meanwhile.
                match self.due(settings)? {
                    Due::At(due) => tokio::time::sleep_until(due.into()).await,
                    Due::Never => std::future::pending().await,
                }
                Some(permit)
            };
            tokio::select! {
                () = &mut ended => {}
                permit = wait => return permit,
            }
        }
    }

    fn due(&self, settings: QuarantineSettings) -> Option<Due> {
        lock(&self.judge).due(settings)
    }

    /// Notes calls that have ended now; `permit` is theirs if the codecs were in quarantine. `publish` reports a change.
    pub(super) fn note(
        &self,
        settings: QuarantineSettings,
        calls: CallStats<'_>,
        permit: Option<&Permit>,
        publish: impl FnOnce(Change),
    ) {
        let mut judge = lock(&self.judge);
        if let Some(change) = judge.note(settings, calls, permit.is_some(), Instant::now()) {
            let has_ended = change == Change::Ended;
            publish(change);
            if has_ended {
                self.ended.notify_waiters();
            }
        }
    }

    /// Notes that a codec could be started again.
    pub(super) fn note_start(&self) {
        lock(&self.judge).failed_starts = 0;
    }

    /// Notes that a codec could not be started for a call. `publish` reports a change.
    pub(super) fn note_failed_start(
        &self,
        settings: QuarantineSettings,
        failure: &HostFailure,
        permit: Option<&Permit>,
        publish: impl FnOnce(Change),
    ) {
        let mut judge = lock(&self.judge);
        let change = judge.note_failed_start(settings, failure, permit.is_some(), Instant::now());
        if let Some(change) = change {
            publish(change);
        }
    }
}

/// What is known of the calls of codecs.
#[derive(Debug, Default)]
struct Judge {
    /// How many records were decoded or rejected.
    records: u64,
    /// The numbers of the records with faults, among the newest [`RECORDS`].
    faults: VecDeque<u64>,
    /// The times of the calls within [`WINDOW`], in the order of time.
    times: VecDeque<TimeSlice>,
    /// How many tries to start in a row have failed, and when the last one did.
    failed_starts: u32,
    last_failed_start: Option<Instant>,
    /// Present while the codecs are in quarantine.
    active: Option<ActiveQuarantine>,
}

/// The times of the calls in a part of [`WINDOW`].
#[derive(Debug, Clone, Copy)]
struct TimeSlice {
    began: Instant,
    took: Duration,
    faulting_calls: u32,
    fault_time: Duration,
}

/// How a quarantine goes on.
#[derive(Debug)]
struct ActiveQuarantine {
    /// When the next record may be decoded.
    next: Instant,
    interval: Duration,
    /// How many records in a row have passed.
    clean_in_a_row: u32,
}

impl Judge {
    /// Returns when the next record may be decoded; `None` if the codecs are not in quarantine.
    fn due(&self, settings: QuarantineSettings) -> Option<Due> {
        let active = self.active.as_ref()?;
        Some(if settings.on_quarantine == OnQuarantine::Wait { Due::Never } else { Due::At(active.next) })
    }

    /// Notes calls that have ended now. `had_permit` says whether they had a permit in quarantine: others began before it.
    fn note(
        &mut self,
        settings: QuarantineSettings,
        calls: CallStats<'_>,
        had_permit: bool,
        now: Instant,
    ) -> Option<Change> {
        if settings.on_quarantine == OnQuarantine::Reject {
            return None;
        }
        if let Some(active) = &mut self.active {
            if !had_permit || !active.note(calls, now) {
                return None;
            }
            *self = Self::default();
            return Some(Change::Ended);
        }
        self.count(calls);
        self.add_times(calls, now);
        let last = calls.last_fault?;
        let cause = self.too_many_faults(settings).or_else(|| self.too_slow_faults())?;
        Some(self.begin(settings, &cause, &format!("The last fault: {last}"), now))
    }

    /// Notes that a codec could not be started. `had_permit` says whether the call had a permit in quarantine.
    fn note_failed_start(
        &mut self,
        settings: QuarantineSettings,
        failure: &HostFailure,
        had_permit: bool,
        now: Instant,
    ) -> Option<Change> {
        if settings.on_quarantine == OnQuarantine::Reject {
            return None;
        }
        if let Some(active) = &mut self.active {
            if had_permit {
                active.slow_down(now);
            }
            return None;
        }
        // Calls that fail together are one try.
        if self.last_failed_start.is_some_and(|last| now.saturating_duration_since(last) < RETRY_AFTER / 2) {
            return None;
        }
        self.last_failed_start = Some(now);
        self.failed_starts += 1;
        if self.failed_starts < MAX_FAILED_STARTS {
            return None;
        }
        let cause = format!("it did not start in {MAX_FAILED_STARTS} tries");
        Some(self.begin(settings, &cause, &format!("The last error: {failure}"), now))
    }

    /// Begins a quarantine.
    fn begin(&mut self, settings: QuarantineSettings, cause: &str, last_error: &str, now: Instant) -> Change {
        let then = match settings.on_quarantine {
            OnQuarantine::Wait => "nothing is decoded until the codecs are swapped".to_owned(),
            OnQuarantine::Probe | OnQuarantine::Reject => {
                format!("one record at a time is decoded, until {CLEAN_RECORDS} in a row pass")
            }
        };
        self.active = Some(ActiveQuarantine {
            next: now + FIRST_INTERVAL,
            interval: FIRST_INTERVAL,
            clean_in_a_row: 0,
        });
        Change::Began(format!("codec quarantined: {cause}; {then} (on_quarantine). {last_error}").into())
    }

    fn count(&mut self, calls: CallStats<'_>) {
        self.records += calls.records;
        // Counted as the last records of the call, because their places are not known.
        self.faults.extend(self.records - calls.faults.min(RECORDS)..self.records);
        let oldest = self.records.saturating_sub(RECORDS);
        while self.faults.front().is_some_and(|&record| record < oldest) {
            self.faults.pop_front();
        }
    }

    fn add_times(&mut self, calls: CallStats<'_>, now: Instant) {
        while self.times.front().is_some_and(|times| now.saturating_duration_since(times.began) >= WINDOW) {
            self.times.pop_front();
        }
        match self.times.back_mut() {
            Some(last) if now.saturating_duration_since(last.began) < WINDOW / PARTS => {
                last.took += calls.took;
                last.faulting_calls += calls.faulting_calls;
                last.fault_time += calls.fault_time;
            }
            _ => {
                let CallStats { took, faulting_calls, fault_time, .. } = calls;
                self.times.push_back(TimeSlice { began: now, took, faulting_calls, fault_time });
            }
        }
    }

    fn too_many_faults(&self, settings: QuarantineSettings) -> Option<String> {
        let (faults, limit) = (self.faults.len(), settings.quarantine_faults);
        (faults > limit as usize).then(|| {
            let of = self.records.min(RECORDS);
            format!(
                "{faults} of the last {of} records made it fault, at most {limit} may (quarantine_faults)"
            )
        })
    }

    /// A few slow faults are not yet a reason: the codec must keep faulting, for half of the whole window.
    fn too_slow_faults(&self) -> Option<String> {
        let took: Duration = self.times.iter().map(|times| times.took).sum();
        let faults: Duration = self.times.iter().map(|times| times.fault_time).sum();
        let calls: u32 = self.times.iter().map(|times| times.faulting_calls).sum();
        (calls >= MIN_FAULTING_CALLS && faults > WINDOW / 2 && faults > took / 2).then(|| {
            format!(
                "{calls} faulting calls took {faults:.1?} of {took:.1?} on all workers in the last {WINDOW:?}"
            )
        })
    }
}

impl ActiveQuarantine {
    /// Notes the call of a turn. Returns whether the quarantine ends.
    fn note(&mut self, calls: CallStats<'_>, now: Instant) -> bool {
        if calls.faults > 0 {
            self.slow_down(now);
            return false;
        }
        self.clean_in_a_row += 1;
        self.interval = FIRST_INTERVAL;
        self.next = now + self.interval;
        self.clean_in_a_row == CLEAN_RECORDS
    }

    /// Waits longer before the next turn, after one that failed.
    fn slow_down(&mut self, now: Instant) {
        self.clean_in_a_row = 0;
        self.interval = (self.interval * 2).min(LONGEST_INTERVAL);
        self.next = now + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::RejectKind;

    const SETTINGS: QuarantineSettings =
        QuarantineSettings { on_quarantine: OnQuarantine::Probe, quarantine_faults: 100 };

    fn fault() -> RejectReason {
        RejectReason::without_component(RejectKind::Trap, "unreachable")
    }

    fn records(records: u64, faults: u64, last_fault: &RejectReason) -> CallStats<'_> {
        CallStats { records, faults, last_fault: (faults > 0).then_some(last_fault), ..CallStats::default() }
    }

    #[test]
    fn too_many_faults_among_the_newest_records_begin_a_quarantine() {
        let (now, fault) = (Instant::now(), fault());
        let mut judge = Judge::default();
        let mut note = |all, faults| judge.note(SETTINGS, records(all, faults, &fault), false, now);
        assert_eq!(note(150, 100), None);
        assert_eq!(note(1000, 0), None);
        assert_eq!(note(100, 100), None, "the first ones are forgotten");
        let Some(Change::Began(reason)) = note(1, 1) else { panic!("no quarantine") };
        assert!(
            reason.contains("101 of the last 1000 records") && reason.contains("unreachable"),
            "{reason}"
        );
    }

    #[test]
    fn slow_faults_begin_a_quarantine_only_if_they_take_half_of_the_window() {
        let (start, fault) = (Instant::now(), fault());
        let slow = |seconds| CallStats {
            took: Duration::from_secs(seconds),
            faulting_calls: 1,
            fault_time: Duration::from_secs(seconds),
            ..records(1, 1, &fault)
        };
        let mut judge = Judge::default();
        assert_eq!(judge.note(SETTINGS, slow(60), false, start), None, "one slow fault");
        let start = start + WINDOW;
        for _ in 0..6 {
            // The window no longer has the first one.
            assert_eq!(judge.note(SETTINGS, slow(1), false, start), None);
        }
        let busy = CallStats { took: Duration::from_secs(8), ..records(100, 0, &fault) };
        assert_eq!(judge.note(SETTINGS, busy, false, start), None);
        for _ in 0..2 {
            assert_eq!(judge.note(SETTINGS, slow(1), false, start), None, "half of the calls' time is good");
        }
        let change = judge.note(SETTINGS, slow(1), false, start);
        let text = "9 faulting calls took 9.0s of 17.0s";
        assert!(matches!(&change, Some(Change::Began(reason)) if reason.contains(text)), "{change:?}");
    }

    #[test]
    fn a_quarantine_ends_after_clean_records_and_slows_down_with_faults() {
        let (mut now, fault) = (Instant::now(), fault());
        let mut judge = Judge::default();
        assert_eq!(judge.due(SETTINGS), None);
        assert!(judge.note(SETTINGS, records(101, 101, &fault), false, now).is_some());
        let mut interval = FIRST_INTERVAL;
        for _ in 0..10 {
            now += interval;
            assert_eq!(judge.due(SETTINGS), Some(Due::At(now)));
            assert_eq!(judge.note(SETTINGS, records(1, 1, &fault), true, now), None);
            interval = (interval * 2).min(LONGEST_INTERVAL);
        }
        for record in 1..=CLEAN_RECORDS {
            let Some(Due::At(due)) = judge.due(SETTINGS) else { panic!("no quarantine") };
            // A call that began before the quarantine says nothing.
            assert_eq!(judge.note(SETTINGS, records(1000, 0, &fault), false, due), None);
            let change = judge.note(SETTINGS, records(1, 0, &fault), true, due);
            assert_eq!(change, (record == CLEAN_RECORDS).then_some(Change::Ended));
        }
        assert_eq!(judge.due(SETTINGS), None);
        assert_eq!(
            judge.note(SETTINGS, records(100, 100, &fault), false, now),
            None,
            "earlier faults are forgotten"
        );
    }

    #[test]
    fn failed_starts_in_a_row_begin_a_quarantine() {
        let failure = HostFailure::cannot_start("no memory");
        let (start, quarantine) = (Instant::now(), Quarantine::default());
        let fail = |seconds| {
            let now = start + Duration::from_secs(seconds);
            lock(&quarantine.judge).note_failed_start(SETTINGS, &failure, false, now)
        };
        assert_eq!([fail(0), fail(0), fail(0), fail(1)], [None, None, None, None], "two tries");
        quarantine.note_start();
        assert_eq!([fail(2), fail(3)], [None, None], "not in a row");
        let Some(Change::Began(reason)) = fail(4) else { panic!("no quarantine") };
        assert!(reason.contains("did not start in 3 tries") && reason.contains("no memory"), "{reason}");
        let mut judge = lock(&quarantine.judge);
        let now = start + Duration::from_secs(5);
        assert_eq!(judge.note_failed_start(SETTINGS, &failure, true, now), None);
        assert_eq!(judge.due(SETTINGS), Some(Due::At(now + 2 * FIRST_INTERVAL)));
        let reject = QuarantineSettings { on_quarantine: OnQuarantine::Reject, ..SETTINGS };
        let mut judge = Judge::default();
        for second in 0..10 {
            let now = start + Duration::from_secs(second);
            assert_eq!(judge.note_failed_start(reject, &failure, false, now), None);
        }
    }

    #[tokio::test]
    async fn partitions_take_turns_and_none_waits_when_the_quarantine_has_ended() {
        let (quarantine, fault) = (Arc::new(Quarantine::default()), fault());
        quarantine.note(SETTINGS, records(101, 101, &fault), None, |_| {});
        let wait = |quarantine: Arc<Quarantine>| {
            tokio::spawn(async move { quarantine.permit(SETTINGS).await.is_some() })
        };
        let first = quarantine.permit(SETTINGS).await.unwrap();
        let second = wait(quarantine.clone());
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        quarantine.note(SETTINGS, records(1, 0, &fault), Some(&first), |_| {});
        drop(first);
        assert!(second.await.unwrap());
        let turn = quarantine.permit(SETTINGS).await.unwrap();
        let waiting = wait(quarantine.clone());
        tokio::task::yield_now().await;
        for _ in 0..CLEAN_RECORDS {
            quarantine.note(SETTINGS, records(1, 0, &fault), Some(&turn), |_| {});
        }
        assert!(!waiting.await.unwrap(), "it is free");
    }

    #[test]
    fn the_settings_say_what_a_quarantine_does() {
        let (now, fault) = (Instant::now(), fault());
        let wait = QuarantineSettings { on_quarantine: OnQuarantine::Wait, ..SETTINGS };
        let mut judge = Judge::default();
        assert!(judge.note(wait, records(101, 101, &fault), false, now).is_some());
        assert_eq!(judge.due(wait), Some(Due::Never));
        let reject = QuarantineSettings { on_quarantine: OnQuarantine::Reject, ..SETTINGS };
        let mut judge = Judge::default();
        assert_eq!(judge.note(reject, records(1000, 1000, &fault), false, now), None);
        assert_eq!(judge.due(reject), None);
    }
}
