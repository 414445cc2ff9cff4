//! What a component may use. Every limit has a default, a name in the
//! configuration, and an error that names both.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many bytes of a component's name and version are kept.
pub(super) const MAX_NAME_BYTES: usize = 100;

/// A set of defaults, by what the guests of some languages need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Rust, C, Go: a few megabytes at most.
    #[default]
    Small,
    /// Python, JavaScript: an interpreter and its heap.
    Large,
}

/// What an instance of a component may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `limits.memory`: the bytes of all memories and tables of an instance.
    /// 64 MiB by default: some 50 times what a Rust or C codec needs. In the
    /// large profile 256 MiB: three times a JavaScript engine.
    pub memory: usize,
    /// `limits.output`: the bytes one record may become. 8 MiB by default: a
    /// record of Kafka's largest default size (1 MiB), eight times blown up.
    pub output: usize,
    /// `limits.deadline`: the time one call may take, plus
    /// [`Limits::deadline_per_record`] for each record in it. Half a second by
    /// default: far above what a call takes, so that a busy machine charges no
    /// record.
    pub deadline: Duration,
    /// `limits.deadline_per_record`: 1 ms by default: the slowest
    /// interpreter that was tried needs 0.04 ms for a record. In the large profile 5 ms.
    pub deadline_per_record: Duration,
    /// `limits.start_deadline`: the time that starting an instance may take, and each of the calls
    /// it gets before its first record, `describe` and `configure`. 5 s by default: an interpreter
    /// starts in a fraction of a second, and a busy machine must not refuse a codec.
    pub start_deadline: Duration,
}

/// A call may return this many times the output of one record. What is more comes in
/// more calls: such a batch is decoded record by record.
const OUTPUT_RECORDS: usize = 4;

impl Limits {
    /// The defaults of a profile.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        let small = Self {
            memory: 64 << 20,
            output: 8 << 20,
            deadline: Duration::from_millis(500),
            deadline_per_record: Duration::from_millis(1),
            start_deadline: Duration::from_secs(5),
        };
        match profile {
            Profile::Small => small,
            Profile::Large => {
                Self { memory: 256 << 20, deadline_per_record: Duration::from_millis(5), ..small }
            }
        }
    }

    /// The time a call with this many records may take.
    pub(super) fn deadline_for(&self, records: usize) -> Duration {
        let records = u32::try_from(records).unwrap_or(u32::MAX);
        self.deadline.saturating_add(self.deadline_per_record.saturating_mul(records))
    }

    /// The bytes a call may return.
    pub(super) fn output_per_call(&self) -> usize {
        self.output.saturating_mul(OUTPUT_RECORDS)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(Profile::default())
    }
}
