//! What the instances of a component have done, for metrics. Components with the same digest are one component.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::codec::{PackedAnswers, RejectReason};
use crate::packed::Packed;
use crate::sync::lock;
use crate::wasm::byte_len::ByteLen;
use crate::wasm::fault::Fault;

/// Why an instance was dropped before its codec was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DropCause {
    /// It trapped, or broke the contract.
    Fault,
    /// It reached the memory, the calls or the age at which instances are replaced.
    Recycled,
}

/// What the instances of a component have done.
#[derive(Debug, Default)]
pub(super) struct UsageCounter {
    calls: AtomicU64,
    items: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    call_nanos: AtomicU64,
    started: AtomicU64,
    dropped_for_faults: AtomicU64,
    recycled: AtomicU64,
    peak_memory: AtomicUsize,
    compilations: AtomicU64,
    compile_nanos: AtomicU64,
    cache_hits: AtomicU64,
    /// By kind of reject. A std lock: held to count.
    rejects: Mutex<BTreeMap<&'static str, u64>>,
    /// By kind and trap code. A std lock: held to count.
    faults: Mutex<BTreeMap<(&'static str, String), u64>>,
}

/// The counts of a [`UsageCounter`].
#[cfg(feature = "cli")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) calls: u64,
    /// Keys, values and pairs that were passed to calls.
    pub(crate) items: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) call_time: Duration,
    /// Instances that were started.
    pub(crate) started: u64,
    /// Instances that were dropped because they had trapped or broken the contract.
    pub(crate) dropped_for_faults: u64,
    /// Instances that were replaced because of their memory, calls or age.
    pub(crate) recycled: u64,
    /// The most memory that one instance used after its start or after a call, in bytes.
    pub(crate) peak_memory: usize,
    pub(crate) compilations: u64,
    pub(crate) compile_time: Duration,
    /// How often the compiled code was in the cache.
    pub(crate) cache_hits: u64,
    /// Keys and values that were rejected, by kind, again for each call that passes them.
    pub(crate) rejects: BTreeMap<&'static str, u64>,
    /// Faults, by kind and trap code; the code is empty for a fault that is no trap.
    pub(crate) faults: BTreeMap<(&'static str, String), u64>,
}

impl UsageCounter {
    /// Counts a call that was answered.
    pub(super) fn add_call(&self, items: &(impl Passed + ?Sized), answers: &impl Answered, took: Duration) {
        self.add_input(items, took);
        self.bytes_out.fetch_add(answers.byte_len() as u64, Ordering::Relaxed);
        for reason in answers.rejected() {
            *lock(&self.rejects).entry(reason.kind.name()).or_default() += 1;
        }
    }

    /// Counts a call in which the guest trapped or broke the contract. It has no answers.
    pub(super) fn add_fault(&self, items: &(impl Passed + ?Sized), fault: &Fault, took: Duration) {
        self.add_input(items, took);
        let code = fault.trap.as_ref().and_then(|trap| trap.code.clone()).unwrap_or_default();
        *lock(&self.faults).entry((fault.kind.name(), code)).or_default() += 1;
    }

    fn add_input(&self, items: &(impl Passed + ?Sized), took: Duration) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.items.fetch_add(items.count() as u64, Ordering::Relaxed);
        self.bytes_in.fetch_add(items.byte_len() as u64, Ordering::Relaxed);
        self.call_nanos.fetch_add(to_nanos(took), Ordering::Relaxed);
    }

    pub(super) fn add_start(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_drop(&self, cause: DropCause) {
        let count = match cause {
            DropCause::Fault => &self.dropped_for_faults,
            DropCause::Recycled => &self.recycled,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes how much memory an instance uses.
    pub(super) fn note_memory(&self, bytes: usize) {
        self.peak_memory.fetch_max(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_compilation(&self, took: Duration) {
        self.compilations.fetch_add(1, Ordering::Relaxed);
        self.compile_nanos.fetch_add(to_nanos(took), Ordering::Relaxed);
    }

    pub(super) fn add_cache_hit(&self) {
        self.cache_hits.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(feature = "cli")]
    pub(super) fn usage(&self) -> Usage {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Usage {
            calls: count(&self.calls),
            items: count(&self.items),
            bytes_in: count(&self.bytes_in),
            bytes_out: count(&self.bytes_out),
            call_time: Duration::from_nanos(count(&self.call_nanos)),
            started: count(&self.started),
            dropped_for_faults: count(&self.dropped_for_faults),
            recycled: count(&self.recycled),
            peak_memory: self.peak_memory.load(Ordering::Relaxed),
            compilations: count(&self.compilations),
            compile_time: Duration::from_nanos(count(&self.compile_nanos)),
            cache_hits: count(&self.cache_hits),
            rejects: lock(&self.rejects).clone(),
            faults: lock(&self.faults).clone(),
        }
    }
}

fn to_nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The items that are passed to a call, to be counted.
pub(super) trait Passed {
    fn count(&self) -> usize;

    fn byte_len(&self) -> usize;
}

impl Passed for Packed {
    fn count(&self) -> usize {
        self.len()
    }

    fn byte_len(&self) -> usize {
        self.bytes().len()
    }
}

impl Passed for [&str] {
    fn count(&self) -> usize {
        self.len()
    }

    fn byte_len(&self) -> usize {
        self.iter().map(|text| text.len()).sum()
    }
}

impl Passed for [(&str, &str)] {
    fn count(&self) -> usize {
        self.len()
    }

    fn byte_len(&self) -> usize {
        self.iter().map(|(group, member)| group.len() + member.len()).sum()
    }
}

/// The answers of a call, to be counted.
pub(super) trait Answered {
    /// Returns the bytes of the answers.
    fn byte_len(&self) -> usize;

    fn rejected(&self) -> impl Iterator<Item = &RejectReason>;
}

impl Answered for PackedAnswers<'_> {
    fn byte_len(&self) -> usize {
        self.byte_len()
    }

    fn rejected(&self) -> impl Iterator<Item = &RejectReason> {
        self.rejected()
    }
}

impl<T: ByteLen> Answered for Vec<Result<T, RejectReason>> {
    fn byte_len(&self) -> usize {
        self.iter().flatten().map(ByteLen::byte_len).sum()
    }

    fn rejected(&self) -> impl Iterator<Item = &RejectReason> {
        self.iter().filter_map(|answer| answer.as_ref().err())
    }
}
