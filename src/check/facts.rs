//! What the machine is like.

use std::fs;
use std::io;

use nix::sys::resource::{Resource, getrlimit};

use super::needs;
use super::ports::{self, Port};
use crate::config::{Config, available_cpus};
use crate::engine::uring::{Abilities, Options, probe, try_rings};
use crate::machine::Limits;

/// How much of a ring is made to see whether there can be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// One of the size that a core's has.
    Whole,
    /// A small one: the kernel gives up its memory late, and a start needs that for its own.
    Small,
}

/// Facts; `None` where the machine does not tell.
#[derive(Debug)]
pub(super) struct Facts {
    /// The kernel's release, such as `6.12.3-generic`.
    pub(super) release: Option<String>,
    /// `kernel.io_uring_disabled`; kernels before 6.6 have no such switch.
    pub(super) io_uring_disabled: Option<u32>,
    /// What came of making a ring and entering it.
    pub(super) ring: io::Result<Abilities>,
    /// Whether a seccomp filter watches this process.
    pub(super) is_filtered: Option<bool>,
    /// Soft and hard limit of open files.
    pub(super) nofile: Option<(u64, u64)>,
    /// Soft and hard limit of locked memory in bytes.
    pub(super) memlock: Option<(u64, u64)>,
    /// Whether that limit is not this process's (CAP_IPC_LOCK).
    pub(super) may_lock: Option<bool>,
    /// What came of making all rings of a start, where that limit is smaller than they would be if they counted.
    pub(super) all_rings: Option<io::Result<()>>,
    /// Memory of the machine.
    pub(super) memory_bytes: Option<u64>,
    /// What control groups leave to this process.
    pub(super) limits: Limits,
    /// The longest backlog that the kernel grants.
    pub(super) somaxconn: Option<u32>,
    /// Addresses to listen on, where they were tried.
    pub(super) ports: Vec<Port>,
    #[cfg(feature = "tls")]
    pub(super) certificates: super::certificates::Certificates,
    /// Processors of this process.
    pub(super) cpus: Vec<usize>,
}

impl Facts {
    pub(super) fn gather(config: &Config, attempt: Attempt) -> Facts {
        let options = match attempt {
            Attempt::Whole => {
                Options { sq_entries: config.ring_entries, cq_entries: config.cq_entries, ..Options::default() }
            }
            Attempt::Small => Options::small(),
        };
        let status = read("/proc/self/status").unwrap_or_default();
        let mut facts = Facts {
            release: read("/proc/sys/kernel/osrelease"),
            io_uring_disabled: number("/proc/sys/kernel/io_uring_disabled"),
            ring: probe(&options),
            is_filtered: is_filtered(&status),
            nofile: getrlimit(Resource::RLIMIT_NOFILE).ok(),
            memlock: getrlimit(Resource::RLIMIT_MEMLOCK).ok(),
            may_lock: may_lock(&status),
            all_rings: None,
            memory_bytes: read("/proc/meminfo").and_then(|text| total_bytes(&text)),
            limits: Limits::of_this_process(),
            somaxconn: number("/proc/sys/net/core/somaxconn"),
            // A start listens on them itself, and says what is wrong then.
            ports: if attempt == Attempt::Whole { ports::try_all(config) } else { Vec::new() },
            // At a start they are read anyway.
            #[cfg(feature = "tls")]
            certificates: match attempt {
                Attempt::Whole => {
                    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                    super::certificates::read_all(config, now.as_secs())
                }
                Attempt::Small => Default::default(),
            },
            // Whoever runs has a processor, even if the kernel does not tell which.
            cpus: available_cpus().ok().filter(|cpus| !cpus.is_empty()).unwrap_or_else(|| vec![0]),
        };
        facts.all_rings = facts.try_all_rings(config);
        facts
    }

    /// Whether rings count for the limit of locked memory is told by nothing but that they do not fit into it. Where they fit
    /// though they would not if they did, they do not count, and what was tried is in nobody's way.
    fn try_all_rings(&self, config: &Config) -> Option<io::Result<()>> {
        let count = config.cores.cpus(self.usable_cpus(config)).len();
        let is_small = self.memlock.is_some_and(|(soft, _)| soft < needs::locked_bytes(config, count as u64));
        let all = Options {
            sq_entries: config.ring_entries,
            cq_entries: config.cq_entries,
            buffers: config.recv_buffers,
            buffer_bytes: config.recv_buffer_bytes,
            ..Options::default()
        };
        (is_small && self.ring.is_ok() && self.may_lock != Some(true)).then(|| try_rings(&all, count))
    }

    /// The processors that these settings make use of.
    pub(super) fn usable_cpus(&self, config: &Config) -> &[usize] {
        config.usable_cpus(&self.cpus, self.limits.cores(self.cpus.len()))
    }
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(String::from(text.trim()))
}

fn number(path: &str) -> Option<u32> {
    read(path)?.parse().ok()
}

/// The value of a line `NAME: VALUE`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// Of `/proc/meminfo`.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let kib: u64 = field(meminfo, "MemTotal")?.strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Of `/proc/self/status`: 2 is a filter.
fn is_filtered(status: &str) -> Option<bool> {
    field(status, "Seccomp").map(|mode| mode == "2")
}

/// Of `/proc/self/status`: whether CAP_IPC_LOCK is among the capabilities in effect.
fn may_lock(status: &str) -> Option<bool> {
    const CAP_IPC_LOCK: u32 = 14;
    let effective = u64::from_str_radix(field(status, "CapEff")?, 16).ok()?;
    Some(effective >> CAP_IPC_LOCK & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says() {
        assert_eq!(total_bytes("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16 << 10));
        assert_eq!(total_bytes("MemFree: 1 kB\n"), None);
        for (status, filtered, locks) in [
            ("Seccomp:\t0\nSeccomp_filters:\t0\nCapEff:\t000001ffffffffff\n", Some(false), Some(true)),
            ("CapPrm:\t0000000000004000\nCapEff:\t0000000000000000\nSeccomp:\t2\n", Some(true), Some(false)),
            ("CapEff:\t0000000000004000\n", None, Some(true)),
            ("CapEff:\t0000000000002000\n", None, Some(false)),
            ("", None, None),
        ] {
            assert_eq!((is_filtered(status), may_lock(status)), (filtered, locks), "{status:?}");
        }
    }
}
