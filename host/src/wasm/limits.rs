//! The limits of an instance of a component. Every limit has a default, a name in the configuration, and an
//! error that names the limit and its value.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The maximum length of a component's name, and of its version, in bytes. A longer one is truncated.
pub(super) const MAX_NAME_BYTES: usize = 100;

/// A set of default limits, for the needs of guests in certain languages.
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Profile {
    /// Rust, C, Go: a few megabytes at most.
    #[default]
    Small,
    /// Python, JavaScript: an interpreter and its heap.
    Large,
}

/// The limits of an instance of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `limits.memory`: the bytes of all memories and tables of an instance. 64 MiB by default, some 50
    /// times what a Rust or C codec needs. In the large profile 256 MiB, three times what a JavaScript engine
    /// needs.
    pub memory: usize,
    /// `limits.output`: how many bytes the output for one record may have. 8 MiB by default: eight times the
    /// largest record in Kafka's default configuration (1 MiB).
    pub output: usize,
    /// `limits.deadline`: how long one call may take, plus [`Limits::deadline_per_record`] for each of its
    /// records. Half a second by default: far above what a call takes, so that no record is rejected because
    /// the machine is busy.
    pub deadline: Duration,
    /// `limits.deadline_per_record`: how much longer a call may take for each of its records. 1 ms by
    /// default: the slowest interpreter that was tried needs 0.04 ms for a record. In the large profile 5 ms.
    pub deadline_per_record: Duration,
    /// `limits.start_deadline`: how long starting an instance may take, and each of the calls before its
    /// first record, `describe` and `configure`. 5 s by default: an interpreter starts in a fraction of a
    /// second, and no codec must be refused because the machine is busy.
    pub start_deadline: Duration,
    /// `limits.recycle_calls`: after how many calls an instance is replaced by a new one, or up to a fifth
    /// earlier, so that not all are replaced at once. A million by default. An instance is also replaced when it uses
    /// about half of its memory limit.
    pub recycle_calls: u64,
    /// `limits.recycle_age`: at what age an instance is replaced by a new one after a call, or up to a fifth earlier.
    /// An hour by default.
    pub recycle_age: Duration,
}

/// The output limit of a call, as a multiple of the output limit of a record. A batch with more output is
/// decoded record by record.
const CALL_OUTPUT_FACTOR: usize = 4;

impl Limits {
    /// Returns the default limits of a profile.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        let small = Self {
            memory: 64 << 20,
            output: 8 << 20,
            deadline: Duration::from_millis(500),
            deadline_per_record: Duration::from_millis(1),
            start_deadline: Duration::from_secs(5),
            recycle_calls: 1_000_000,
            recycle_age: Duration::from_secs(60 * 60),
        };
        match profile {
            Profile::Small => small,
            Profile::Large => {
                Self { memory: 256 << 20, deadline_per_record: Duration::from_millis(5), ..small }
            }
        }
    }

    /// Returns how long a call with this many records may take.
    pub(super) fn deadline_for(&self, records: usize) -> Duration {
        let records = u32::try_from(records).unwrap_or(u32::MAX);
        self.deadline.saturating_add(self.deadline_per_record.saturating_mul(records))
    }

    /// Returns how many bytes a call may return.
    pub(super) fn output_per_call(&self) -> usize {
        self.output.saturating_mul(CALL_OUTPUT_FACTOR)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(Profile::default())
    }
}
