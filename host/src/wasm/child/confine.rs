//! Limits the resources of a child process, from within.

use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::wasm::child::limits::{address_space_bytes, cores};

/// The niceness of a child, so that normal processes of the machine have priority.
const NICE: i32 = 10;

/// Limits the address space, the CPU time and the priority of this process. A child calls it before it reads
/// its input.
///
/// `deadline` is how long the child may take. The limit of CPU time that follows from it ends the child even
/// if the parent is gone.
pub(crate) fn confine(deadline: Duration) -> io::Result<()> {
    let limit = |limit: u64| Rlimit { current: Some(limit), maximum: Some(limit) };
    setrlimit(Resource::As, limit(address_space_bytes()))?;
    setrlimit(Resource::Cpu, limit(deadline.as_secs().max(1) * cores() + 1))?;
    setrlimit(Resource::Core, limit(0))?;
    rustix::process::nice(NICE)?;
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}
