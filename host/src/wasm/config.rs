//! The configuration of wasmtime, and the clock for the deadlines of guests.

use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::codec::workers::TICK;
use crate::thread;
use crate::wasm::error::WasmError;
use crate::wasm::metering::Metering;
use crate::wasm::scan::{MAX_MEMORIES, MAX_MODULE_INSTANCES, MAX_TABLE_ELEMENTS, MAX_TABLES};

/// The stack of a guest, in bytes: wasmtime's default. The threads that guests run on have more.
pub(super) const STACK_BYTES: usize = 512 << 10;

/// How many instances may exist at once. Each reserves 4 GiB of the 128 TiB of address space.
const INSTANCES: u32 = 2000;

/// How many core modules a component usually consists of: the guest's own, and two that
/// `wit-component` adds for its imports.
const MODULES: u32 = 3;

/// How many bytes of wasmtime's own data an instance may have. What it needs is charged to it; a component that needs
/// more than this is refused.
const INSTANCE_DATA_BYTES: usize = 16 << 20;

/// Returns the configuration of wasmtime. Compiled code does not depend on `pooled`, which selects how
/// instances are allocated.
pub(super) fn config(metering: Metering, pooled: bool) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(metering == Metering::Deadline)
        .consume_fuel(metering == Metering::Fuel)
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .max_wasm_stack(STACK_BYTES);
    if pooled {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(INSTANCES)
            .total_core_instances(INSTANCES * MODULES)
            .total_memories(INSTANCES)
            .total_tables(INSTANCES * MODULES)
            .table_elements(MAX_TABLE_ELEMENTS as usize)
            // Wasmtime adds modules that convert texts between components.
            .max_core_instances_per_component(MAX_MODULE_INSTANCES as u32 * 2)
            .max_core_instance_size(INSTANCE_DATA_BYTES)
            .max_component_instance_size(INSTANCE_DATA_BYTES)
            .max_memories_per_component(MAX_MEMORIES as u32)
            .max_tables_per_component(MAX_TABLES as u32)
            .max_memories_per_module(MAX_MEMORIES as u32)
            .max_tables_per_module(MAX_TABLES as u32);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// Starts the thread that increments the engine's epoch every [`TICK`] until the engine is dropped.
pub(super) fn start_clock(engine: &wasmtime::Engine) -> Result<(), WasmError> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    thread::spawn("ktables-epoch", tick).map(drop).map_err(|error| WasmError::Engine {
        reason: format!("cannot start the thread that checks deadlines: {error}"),
    })
}
