//! How much memory this process takes, and may take.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// The part of what the machine, or the container, has that a process may take by default, in
/// percent: the rest is for what tables cannot see, such as clients' queues and the page cache.
const DEFAULT_PERCENT: u64 = 80;

/// How often to look: tables ask with each batch.
const LOOK: Duration = Duration::from_millis(100);

/// The limit that was set; 0 is the default.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// Sets how many bytes this process may take before its tables stop applying what comes. By default
/// that is 80 % of the memory of its container (cgroup), or of the machine.
pub fn set_process_limit(bytes: u64) {
    LIMIT.store(bytes.max(1), Ordering::Relaxed);
}

/// How many bytes this process takes and may take, if it takes more.
pub(crate) fn over_process_limit() -> Option<(u64, u64)> {
    static SAMPLE: Mutex<Option<(Instant, u64)>> = Mutex::new(None);
    let now = Instant::now();
    let mut sample = lock(&SAMPLE);
    let used = match *sample {
        Some((at, used)) if now.saturating_duration_since(at) < LOOK => used,
        _ => {
            let used = resident_bytes().unwrap_or(0);
            *sample = Some((now, used));
            used
        }
    };
    let limit = match LIMIT.load(Ordering::Relaxed) {
        0 => *DEFAULT_LIMIT,
        limit => limit,
    };
    (used > limit).then_some((used, limit))
}

/// The default, or no limit where nothing is known of the machine.
static DEFAULT_LIMIT: LazyLock<u64> = LazyLock::new(|| {
    let available = [machine_bytes(), cgroup_bytes()].into_iter().flatten().min();
    available.map_or(u64::MAX, |bytes| bytes / 100 * DEFAULT_PERCENT)
});

fn resident_bytes() -> Option<u64> {
    // Asked for often: this file is the shortest that has it, in pages.
    static PAGE_BYTES: LazyLock<Option<u64>> =
        LazyLock::new(|| kib_of("/proc/self/smaps", "KernelPageSize:"));
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * (*PAGE_BYTES)?)
}

fn machine_bytes() -> Option<u64> {
    kib_of("/proc/meminfo", "MemTotal:")
}

/// The bytes of a line of such a file, which has them in KiB.
fn kib_of(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The smallest limit of the process's cgroup and those around it, of either version.
fn cgroup_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (root, file) = match controllers.split(',').any(|name| name == "memory") {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            false if controllers.is_empty() => ("/sys/fs/cgroup", "memory.max"),
            false => return Vec::new(),
        };
        group_limits(Path::new(root), path, file)
    });
    limits.min()
}

/// The limits of a group and of those around it.
fn group_limits(root: &Path, path: &str, file: &str) -> Vec<u64> {
    let group: PathBuf = root.join(path.trim_start_matches('/'));
    let around = group.ancestors().take_while(|folder| folder.starts_with(root));
    // A container sees its own group as the root.
    let limit = |folder: &Path| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok();
    around.filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_less_than_its_machine_has() {
        let (used, machine) = (resident_bytes().unwrap(), machine_bytes().unwrap());
        assert!(used > 0 && used < machine && *DEFAULT_LIMIT <= machine, "{used} of {machine}");
    }

    #[test]
    fn the_smallest_limit_around_a_group_counts() {
        let root = tempfile::TempDir::new().unwrap();
        let group = root.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        fs::write(root.path().join("a/memory.max"), "1000\n").unwrap();
        fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(group_limits(root.path(), "/a/b", "memory.max"), [1000]);
    }
}
