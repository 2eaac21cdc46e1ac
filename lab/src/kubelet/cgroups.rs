//! The control groups of a cluster's machines.
//!
//! They are the only thing of a lab that the kernel does not take away by itself. So a small process waits for the end of the
//! lab, which closes a pipe whatever way it ends, and removes them then.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{LabError, Result};

/// Waits for the end of the lab, then for the end of what runs in the groups, at most ten seconds.
const CLEANER: &str = "trap '' HUP INT TERM
cat >/dev/null
for _ in $(seq 100); do
  find \"$@\" -depth -type d -exec rmdir {} + 2>/dev/null
  left=; for group; do if [ -d \"$group\" ]; then left=1; fi; done
  if [ -z \"$left\" ]; then exit 0; fi
  sleep 0.1
done";

/// A group in each hierarchy, below the one that this process is in, so that its limits hold for a lab as well.
#[derive(Debug)]
pub(super) struct Cgroups {
    groups: Vec<PathBuf>,
    cleaner: Child,
    // Closed by the kernel when this process ends.
    alive: Option<ChildStdin>,
}

impl Cgroups {
    /// Makes the groups of one cluster.
    pub(super) fn create() -> Result<Cgroups> {
        static CLUSTERS: AtomicUsize = AtomicUsize::new(0);
        let name = format!("twill-lab-{}-{}", process::id(), CLUSTERS.fetch_add(1, Ordering::Relaxed));
        let hierarchies = own_groups()?;
        let groups: Vec<PathBuf> = hierarchies.iter().map(|group| group.join(&name)).collect();
        // Before they exist: it removes those that are there.
        let mut command = Command::new("sh");
        command.args(["-c", CLEANER, "sh"]).args(&groups).stdin(Stdio::piped()).stdout(Stdio::null());
        // Whoever ends the lab with its whole process group shall not end this one.
        command.process_group(0);
        let mut cleaner = command.spawn().map_err(LabError::system("start a process that removes control groups"))?;
        let alive = cleaner.stdin.take();
        let cgroups = Cgroups { groups, cleaner, alive };
        cgroups.groups.iter().try_for_each(|group| make(group))?;
        Ok(cgroups)
    }

    /// Makes the groups of one machine.
    pub(super) fn add(&self, machine: &str) -> Result<Vec<PathBuf>> {
        let groups: Vec<PathBuf> = self.groups.iter().map(|group| group.join(machine)).collect();
        groups.iter().try_for_each(|group| make(group))?;
        Ok(groups)
    }

    /// The process ids, as the lab sees them, of a container.
    pub(super) fn processes_of(&self, container: &str) -> Vec<u32> {
        let find = |dir: &PathBuf| below(dir, container);
        let text = self.groups.iter().find_map(find).and_then(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
        text.unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.alive.take();
        // Its own patience ends it.
        let _ = self.cleaner.wait();
    }
}

/// The group of this process in each hierarchy.
fn own_groups() -> Result<Vec<PathBuf>> {
    let read = |path: &str| fs::read_to_string(path).map_err(LabError::system(format!("read {path}")));
    let (member, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
    let groups = groups_v1(&member, &mounts);
    if groups.is_empty() {
        return Err(LabError::Unsuitable(
            "machines of a cluster are made with control groups of version 1, and none is mounted here".into(),
        ));
    }
    Ok(groups)
}

fn groups_v1(member: &str, mounts: &str) -> Vec<PathBuf> {
    let path_of = |controllers: &str| {
        member.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            (fields.next() == Some(controllers)).then(|| fields.next())?
        })
    };
    let group = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let (root, point) = (place.split(' ').nth(3)?, place.split(' ').nth(4)?);
        let mut kind = kind.split(' ');
        if kind.next() != Some("cgroup") {
            return None;
        }
        let options = kind.nth(1)?;
        let controllers: Vec<&str> =
            options.split(',').filter(|option| !["rw", "ro", "none", "xattr", "noprefix"].contains(option)).collect();
        let path = Path::new(path_of(&controllers.join(","))?);
        let inside = path.strip_prefix(root).or_else(|_| path.strip_prefix("/")).ok()?;
        Some(Path::new(point).join(inside))
    };
    mounts.lines().filter_map(group).collect()
}

fn make(group: &Path) -> Result<()> {
    fs::create_dir_all(group).map_err(LabError::system(format!("create the control group {}", group.display())))?;
    // A new group of this hierarchy has no processors and takes no process until it gets some.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (own, parent) = (group.join(file), group.parent().map(|parent| parent.join(file)));
        if let Some(text) = parent.and_then(|parent| fs::read_to_string(parent).ok())
            && own.exists()
        {
            fs::write(&own, text.trim()).map_err(LabError::system(format!("write {}", own.display())))?;
        }
    }
    Ok(())
}

fn below(dir: &Path, name: &str) -> Option<PathBuf> {
    let dirs =
        || fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    dirs()
        .find(|path| path.file_name().is_some_and(|found| found == name))
        .or_else(|| dirs().find_map(|dir| below(&dir, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_lie_below_the_own_one_of_each_hierarchy() {
        let member = "4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n";
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
             36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let paths = ["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd"];
        assert_eq!(groups_v1(member, mounts), paths.map(PathBuf::from));
    }

    #[test]
    fn a_group_seen_from_inside_a_container_begins_at_the_mount() {
        let mounts = "35 31 0:32 /a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(groups_v1("4:memory:/a/b\n", mounts), [PathBuf::from("/sys/fs/cgroup/memory/b")]);
    }
}
