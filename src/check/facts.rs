//! What the machine is like.

use std::fs;
use std::io;

use io_uring::{IoUring, Probe, opcode};
use nix::sys::resource::{Resource, getrlimit};

use crate::config::{Config, available_cpus};

/// Facts; `None` where the machine does not tell.
#[derive(Debug)]
pub(super) struct Facts {
    /// The kernel's release, such as `6.12.3-generic`.
    pub(super) release: Option<String>,
    /// `kernel.io_uring_disabled`; kernels before 6.6 have no such switch.
    pub(super) io_uring_disabled: Option<u32>,
    /// What came of making a ring: the operations that the kernel lacks, or why there is no ring.
    pub(super) ring: io::Result<Vec<&'static str>>,
    /// Whether a seccomp filter watches this process.
    pub(super) is_filtered: Option<bool>,
    /// Soft and hard limit of open files.
    pub(super) nofile: Option<(u64, u64)>,
    /// Soft and hard limit of locked memory in bytes.
    pub(super) memlock: Option<(u64, u64)>,
    /// Memory that this process can have at most: the machine's, or its control group's.
    pub(super) memory_bytes: Option<u64>,
    /// The longest backlog that the kernel grants.
    pub(super) somaxconn: Option<u32>,
    /// Processors of this process.
    pub(super) cpus: Vec<usize>,
}

impl Facts {
    pub(super) fn gather(config: &Config) -> Facts {
        Facts {
            release: read("/proc/sys/kernel/osrelease"),
            io_uring_disabled: number("/proc/sys/kernel/io_uring_disabled"),
            ring: try_ring(config),
            is_filtered: is_filtered(),
            nofile: getrlimit(Resource::RLIMIT_NOFILE).ok(),
            memlock: getrlimit(Resource::RLIMIT_MEMLOCK).ok(),
            memory_bytes: memory_bytes(),
            somaxconn: number("/proc/sys/net/core/somaxconn"),
            // Whoever runs has a processor, even if the kernel does not tell which.
            cpus: available_cpus().ok().filter(|cpus| !cpus.is_empty()).unwrap_or_else(|| vec![0]),
        }
    }
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(String::from(text.trim()))
}

fn number(path: &str) -> Option<u32> {
    read(path)?.parse().ok()
}

fn memory_bytes() -> Option<u64> {
    let meminfo = read("/proc/meminfo")?;
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = total.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10;
    // Version 2 of control groups: `0::/path`. Without a limit it says `max`.
    let group = read("/proc/self/cgroup").and_then(|text| Some(text.strip_prefix("0::")?.to_owned()));
    let limit = group.and_then(|group| read(&format!("/sys/fs/cgroup{group}/memory.max"))?.parse().ok());
    Some(total.min(limit.unwrap_or(u64::MAX)))
}

fn is_filtered() -> Option<bool> {
    let status = read("/proc/self/status")?;
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"))?;
    Some(mode.trim() == "2")
}

/// Makes a ring as a core does, asks what it can do, and drops it.
fn try_ring(config: &Config) -> io::Result<Vec<&'static str>> {
    let ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(config.cq_entries)
        .setup_clamp()
        .build(config.ring_entries)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        ("ACCEPT", opcode::Accept::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ("CLOSE", opcode::Close::CODE),
        ("CONNECT", opcode::Connect::CODE),
        ("FILES_UPDATE", opcode::FilesUpdate::CODE),
        ("MSG_RING", opcode::MsgRingData::CODE),
        ("RECV", opcode::Recv::CODE),
        ("SEND", opcode::Send::CODE),
        // The newest of them, and new in 6.1: stands for vectored SEND and multishot RECV, which no probe tells.
        ("SENDMSG_ZC", opcode::SendMsgZc::CODE),
    ];
    let lacks = needed.iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| *name);
    Ok(lacks.collect())
}
