//! What a child does first.

use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::wasm::child::limits::{cores, memory_bytes};

/// How much a child has to give way to the rest of the machine.
const NICE: i32 = 10;

/// Bounds what this process may take. Called by a child before it reads its input.
///
/// `deadline` is what its parent waits for; it is for the case that the parent is gone.
pub(crate) fn confine(deadline: Duration) -> io::Result<()> {
    let limit = |limit: u64| Rlimit { current: Some(limit), maximum: Some(limit) };
    setrlimit(Resource::As, limit(memory_bytes()))?;
    setrlimit(Resource::Cpu, limit(deadline.as_secs().max(1) * cores() + 1))?;
    setrlimit(Resource::Core, limit(0))?;
    rustix::process::nice(NICE)?;
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}
