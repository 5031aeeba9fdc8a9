//! What the machine leaves to this process beside what it has: the limits of control groups, on processors and memory.
//!
//! In: the files below `/proc` and `/sys`, or below another root for tests. Out: numbers. It changes nothing.
//!
//! Knows of this crate: nothing.

mod groups;

use std::path::Path;

use groups::Groups;

/// The limits of the control groups that this process is in, the tightest of each kind; `None` where there is none, or the
/// machine does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    /// Processor seconds in a second (`cpu.max`; `cpu.cfs_quota_us` in version 1).
    pub(crate) processors: Option<f64>,
    /// Bytes of memory (`memory.max`; `memory.limit_in_bytes` in version 1).
    pub(crate) memory_bytes: Option<u64>,
}

impl Limits {
    /// Those of this process now.
    pub(crate) fn of_this_process() -> Limits {
        Limits::below(Path::new("/"))
    }

    /// As told by the `proc` and `sys` below `root`.
    pub(crate) fn below(root: &Path) -> Limits {
        let groups = Groups::read(root);
        Limits { processors: groups.processors(), memory_bytes: groups.memory_bytes() }
    }

    /// How many cores can be kept busy on `available` processors: a part of a processor is a core too, for it would be idle
    /// otherwise. At least 1.
    pub(crate) fn cores(&self, available: usize) -> usize {
        let quota = self.processors.map_or(usize::MAX, |quota| quota.ceil() as usize);
        available.min(quota).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_processor_is_a_core() {
        for (quota, available, cores) in [
            (None, 8, 8),
            (Some(0.01), 8, 1),
            (Some(0.5), 2, 1),
            (Some(1.0), 2, 1),
            (Some(1.5), 2, 2),
            (Some(2.0), 8, 2),
            (Some(7.01), 8, 8),
            (Some(64.0), 8, 8),
            (Some(0.0), 8, 1),
        ] {
            assert_eq!(
                Limits { processors: quota, memory_bytes: None }.cores(available),
                cores,
                "{quota:?} of {available}"
            );
        }
    }

    #[test]
    fn this_machine_can_be_asked() {
        let limits = Limits::of_this_process();
        assert!(limits.cores(4) >= 1 && limits.memory_bytes != Some(0));
    }
}
