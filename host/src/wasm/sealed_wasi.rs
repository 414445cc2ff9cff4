//! The state of WASI in one instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, ResourceTable, WasiCtx};

/// How many resources, such as streams, an instance may have at once.
const MAX_RESOURCES: usize = 1000;

/// The bytes that the host keeps for an instance that uses WASI, at most: about 150 for each resource.
pub(super) const WASI_HOST_BYTES: usize = MAX_RESOURCES * 150;

/// How many random bytes a guest may request at once.
const MAX_RANDOM_BYTES: u64 = 1 << 20;

/// The seed of the random numbers of all instances, so that a fault can be reproduced.
const SEED: u64 = 0;

/// How much the clocks of an instance advance with each reading.
const CLOCK_STEP: Duration = Duration::from_micros(1);

/// The time at which the clocks of an instance begin, since 1970: in 2020, because some runtimes refuse older times.
const CLOCK_START: Duration = Duration::from_secs(1_577_836_800);

/// The state of WASI in one instance.
pub(super) struct SealedWasi {
    pub(super) ctx: WasiCtx,
    pub(super) table: ResourceTable,
}

impl SealedWasi {
    pub(super) fn new() -> Self {
        let clock = CountingClock(Arc::default());
        let ctx = WasiCtx::builder()
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .wall_clock(clock.clone())
            .monotonic_clock(clock)
            .secure_random(StdRng::seed_from_u64(SEED))
            .insecure_random(StdRng::seed_from_u64(SEED))
            .insecure_random_seed(SEED.into())
            .max_random_size(MAX_RANDOM_BYTES)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Self { ctx, table }
    }
}

impl std::fmt::Debug for SealedWasi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedWasi").finish_non_exhaustive()
    }
}

/// A clock that advances with each reading, and only then.
#[derive(Debug, Clone)]
struct CountingClock(Arc<AtomicU64>);

impl CountingClock {
    fn advance(&self) -> Duration {
        let readings = self.0.fetch_add(1, Ordering::Relaxed);
        Duration::from_nanos(readings.wrapping_mul(CLOCK_STEP.as_nanos() as u64))
    }
}

impl HostWallClock for CountingClock {
    fn resolution(&self) -> Duration {
        CLOCK_STEP
    }

    fn now(&self) -> Duration {
        CLOCK_START + self.advance()
    }
}

impl HostMonotonicClock for CountingClock {
    fn resolution(&self) -> u64 {
        CLOCK_STEP.as_nanos() as u64
    }

    fn now(&self) -> u64 {
        self.advance().as_nanos() as u64
    }
}
