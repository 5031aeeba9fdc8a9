//! Control groups: which this process is in, and what their files say.
//!
//! A group's limit holds for all groups below it, so the tightest of a path's limits is the process's. A container often
//! sees its group as the root of the tree, while `/proc/self/cgroup` tells the path outside: where a folder is not there, the
//! ones above it are looked at all the same.

use std::fs;
use std::path::{Path, PathBuf};

/// The folders of the groups that limit this process, the root of each tree included.
pub(super) struct Groups {
    /// Version 2.
    unified: Vec<PathBuf>,
    /// Version 1, of the controllers `cpu` and `memory`.
    cpu: Vec<PathBuf>,
    memory: Vec<PathBuf>,
}

impl Groups {
    pub(super) fn read(root: &Path) -> Groups {
        let mine = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let tree = root.join("sys/fs/cgroup");
        // Where both versions are in use, the second one is mounted within the first.
        let mounts = |places: &[&str], path: Option<&str>| -> Vec<PathBuf> {
            let path = path.unwrap_or_default();
            places.iter().flat_map(|place| upwards(&tree.join(place), path)).collect()
        };
        Groups {
            unified: mounts(&["", "unified"], path_of(&mine, None)),
            cpu: mounts(&["cpu", "cpu,cpuacct"], path_of(&mine, Some("cpu"))),
            memory: mounts(&["memory"], path_of(&mine, Some("memory"))),
        }
    }

    pub(super) fn processors(&self) -> Option<f64> {
        let unified = self.unified.iter().filter_map(|group| cpu_max(&text(group, "cpu.max")?));
        let old = |group: &PathBuf| cfs_quota(&text(group, "cpu.cfs_quota_us")?, &text(group, "cpu.cfs_period_us")?);
        unified.chain(self.cpu.iter().filter_map(old)).min_by(f64::total_cmp)
    }

    pub(super) fn memory_bytes(&self) -> Option<u64> {
        let unified = self.unified.iter().filter_map(|group| memory_max(&text(group, "memory.max")?));
        let old = |group: &PathBuf| memory_max(&text(group, "memory.limit_in_bytes")?);
        unified.chain(self.memory.iter().filter_map(old)).min()
    }
}

fn text(group: &Path, file: &str) -> Option<String> {
    fs::read_to_string(group.join(file)).ok()
}

/// The folder of `path` in the tree at `mount`, and all folders above it in that tree.
fn upwards(mount: &Path, path: &str) -> Vec<PathBuf> {
    let group = mount.join(path.trim_start_matches('/'));
    group.ancestors().take_while(|folder| folder.starts_with(mount)).map(Path::to_owned).collect()
}

/// The path of a process's group in `/proc/self/cgroup`, whose lines are `NUMBER:CONTROLLERS:PATH`: that of a controller in
/// version 1, or that of version 2, which has number 0 and no controllers.
fn path_of<'a>(groups: &'a str, controller: Option<&str>) -> Option<&'a str> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_it = match controller {
            None => number == "0" && controllers.is_empty(),
            Some(controller) => controllers.split(',').any(|one| one == controller),
        };
        // A path that leads out of the tree is none that this process can see.
        (is_it && !path.split('/').any(|part| part == "..")).then_some(path)
    })
}

/// `cpu.max`: `QUOTA PERIOD` in microseconds, or `max PERIOD`.
fn cpu_max(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    cfs_quota(words.next()?, words.next().unwrap_or("100000"))
}

/// Quota and period in microseconds. Without a quota version 1 says -1, version 2 `max`.
fn cfs_quota(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.trim().parse::<u64>().ok()?, period.trim().parse::<u64>().ok()?);
    (period > 0).then(|| quota as f64 / period as f64)
}

/// Bytes. Without a limit version 2 says `max`, version 1 all the pages that a counter counts.
fn memory_max(text: &str) -> Option<u64> {
    const UNLIMITED_FROM: u64 = 1 << 62;
    text.trim().parse().ok().filter(|bytes| *bytes < UNLIMITED_FROM)
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::*;

    #[test]
    fn what_files_say() {
        for (text, processors) in [
            ("max 100000\n", None),
            ("50000 100000\n", Some(0.5)),
            ("200000 100000", Some(2.0)),
            ("150000", Some(1.5)),
            ("25000 0", None),
            ("", None),
            ("many 100000", None),
        ] {
            assert_eq!(cpu_max(text), processors, "{text:?}");
        }
        assert_eq!(cfs_quota("-1\n", "100000\n"), None);
        assert_eq!(cfs_quota("20000\n", "10000\n"), Some(2.0));
        for (text, bytes) in [
            ("max\n", None),
            ("25165824\n", Some(25_165_824)),
            ("0", Some(0)),
            ("9223372036854771712\n", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(memory_max(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn where_a_process_is() {
        let both = "4:memory:/pods/one\n2:cpu,cpuacct:/quota:odd\n1:cpuset:/\n0::/user.slice\n";
        assert_eq!(path_of(both, None), Some("/user.slice"));
        assert_eq!(path_of(both, Some("memory")), Some("/pods/one"));
        assert_eq!(path_of(both, Some("cpu")), Some("/quota:odd"));
        assert_eq!(path_of(both, Some("cpuacct")), Some("/quota:odd"));
        assert_eq!(path_of("0::/\n", Some("cpu")), None);
        assert_eq!(path_of("0::/../outside\n", None), None);
        assert_eq!(path_of("", None), None);
    }

    /// A machine's files in a folder of its own, which goes with it.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Root {
            let root = Root(std::env::temp_dir().join(format!("ringwire-groups-{name}-{}", std::process::id())));
            let _ = fs::remove_dir_all(&root.0);
            for (path, text) in files {
                let path = root.0.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            root
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Name, files, processors, bytes.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<f64>, Option<u64>);

    #[test]
    fn the_tightest_limit_of_all_groups_holds() {
        let cases: [Case<'_>; 7] = [
            ("nothing", &[], None, None),
            (
                "container-2",
                &[
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
                    ("sys/fs/cgroup/memory.max", "25165824\n"),
                ],
                Some(0.5),
                Some(24 << 20),
            ),
            (
                "nested-2",
                &[
                    ("proc/self/cgroup", "0::/outer/inner\n"),
                    ("sys/fs/cgroup/outer/cpu.max", "150000 100000\n"),
                    ("sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n"),
                    ("sys/fs/cgroup/outer/memory.max", "max\n"),
                    ("sys/fs/cgroup/outer/inner/memory.max", "1073741824\n"),
                    ("sys/fs/cgroup/elsewhere/memory.max", "1\n"),
                ],
                Some(1.5),
                Some(1 << 30),
            ),
            (
                "path-outside-2",
                &[("proc/self/cgroup", "0::/kubepods/pod7/box\n"), ("sys/fs/cgroup/cpu.max", "200000 100000\n")],
                Some(2.0),
                None,
            ),
            (
                "container-1",
                &[
                    ("proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n"),
                    ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
                    ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n"),
                ],
                Some(0.5),
                Some(64 << 20),
            ),
            (
                "unlimited-1",
                &[
                    ("proc/self/cgroup", "5:cpu:/a\n4:memory:/a\n"),
                    ("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n"),
                    ("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n"),
                    ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n"),
                ],
                None,
                None,
            ),
            (
                "both",
                &[
                    ("proc/self/cgroup", "4:memory:/a\n0::/b\n"),
                    ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "33554432\n"),
                    ("sys/fs/cgroup/unified/b/cpu.max", "300000 100000\n"),
                ],
                Some(3.0),
                Some(32 << 20),
            ),
        ];
        for (name, files, processors, memory_bytes) in cases {
            let root = Root::new(name, files);
            assert_eq!(Limits::below(&root.0), Limits { processors, memory_bytes }, "{name}");
        }
    }
}
