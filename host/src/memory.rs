//! The memory that this process uses, and its limit.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// The default limit, in percent of the memory of the machine or the container. The rest is left for memory
/// that tables do not control, such as the queues of clients and the page cache.
const DEFAULT_PERCENT: u64 = 80;

/// How long a sample of the used memory is reused. Tables check the limit with each batch.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// The limit that was set, in bytes; 0 means the default.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// Sets the memory limit of this process, in bytes. While the process uses more, its tables stop applying
/// records. The default is 80 % of the memory of the container (cgroup), or of the machine.
pub fn set_process_memory_limit(bytes: u64) {
    LIMIT.store(bytes.max(1), Ordering::Relaxed);
}

/// Returns the used bytes and the limit, if this process uses more than its limit.
pub(crate) fn exceeded_process_limit() -> Option<(u64, u64)> {
    static SAMPLE: Mutex<Option<(Instant, u64)>> = Mutex::new(None);
    let now = Instant::now();
    let mut sample = lock(&SAMPLE);
    let used = match *sample {
        Some((at, used)) if now.saturating_duration_since(at) < SAMPLE_EVERY => used,
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

/// The default limit, or no limit if the memory of the machine is unknown.
static DEFAULT_LIMIT: LazyLock<u64> = LazyLock::new(|| {
    let available = [machine_bytes(), cgroup_bytes()].into_iter().flatten().min();
    available.map_or(u64::MAX, |bytes| bytes / 100 * DEFAULT_PERCENT)
});

pub(crate) fn resident_bytes() -> Option<u64> {
    static PAGE_BYTES: LazyLock<Option<u64>> =
        LazyLock::new(|| read_proc_bytes("/proc/self/smaps", "KernelPageSize:"));
    // The shortest file that contains the resident size, here in pages: it is read often.
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * (*PAGE_BYTES)?)
}

fn machine_bytes() -> Option<u64> {
    read_proc_bytes("/proc/meminfo", "MemTotal:")
}

/// Reads a size from the beginning of a file of `/proc`, which has a line with its name and its value in KiB. Returns it
/// in bytes.
fn read_proc_bytes(file: &str, name: &str) -> Option<u64> {
    // The list of all mappings has a megabyte or more in a process with a pool of instances.
    let mut beginning = Vec::new();
    fs::File::open(file).ok()?.take(4096).read_to_end(&mut beginning).ok()?;
    let text = String::from_utf8_lossy(&beginning);
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Returns the smallest memory limit of the process's cgroup and its ancestors. Supports cgroup v1 and v2.
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
        cgroup_limits(Path::new(root), path, file)
    });
    limits.min()
}

/// Returns the memory limits of a cgroup and its ancestors, in bytes.
fn cgroup_limits(root: &Path, path: &str, file: &str) -> Vec<u64> {
    let group: PathBuf = root.join(path.trim_start_matches('/'));
    let folders = group.ancestors().take_while(|folder| folder.starts_with(root));
    // Inside a container, the folder of its cgroup may not exist, because the container sees its cgroup as
    // the root.
    let limit = |folder: &Path| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok();
    folders.filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_less_memory_than_its_machine_has() {
        let (used, machine) = (resident_bytes().unwrap(), machine_bytes().unwrap());
        assert!(used > 0 && used < machine && *DEFAULT_LIMIT <= machine, "{used} of {machine}");
    }

    #[test]
    fn the_limits_of_a_cgroup_and_its_ancestors_are_read() {
        let root = tempfile::TempDir::new().unwrap();
        let group = root.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        fs::write(root.path().join("a/memory.max"), "1000\n").unwrap();
        fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(cgroup_limits(root.path(), "/a/b", "memory.max"), [1000]);
    }
}
